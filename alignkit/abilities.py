"""Whether a component offers an ability that may replace its plain method.

``isinstance`` is not enough: a subclass may override only the plain method.
"""

from __future__ import annotations

from typing import TypeGuard

from alignkit.protocols import Judges, Streams


def judges(reward: object) -> TypeGuard[Judges]:
    """Whether ``submit`` may be used instead of calling ``reward``."""
    return _stands_in(reward, "submit", "__call__")


def streams(backend: object) -> TypeGuard[Streams]:
    """Whether ``stream`` may be used instead of ``generate`` of ``backend``."""
    return _stands_in(backend, "stream", "generate")


def _stands_in(component: object, offered: str, plain: str) -> bool:
    """Whether no subclass of the class that offers the ability overrides only the plain method.

    If a subclass or a delegating wrapper changes the plain method, that method must be called,
    whatever else it inherits.
    """
    for kind in type(component).__mro__:
        if offered in vars(kind):
            return True
        if plain in vars(kind):
            return False
    return False
