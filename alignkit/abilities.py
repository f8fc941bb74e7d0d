"""Whether a component offers an ability that stands in for its plain method.

``isinstance`` does not tell: a subclass may change the plain method alone.
"""

from __future__ import annotations

from typing import TypeGuard

from alignkit.protocols import Judges, Streams


def judges(reward: object) -> TypeGuard[Judges]:
    """Whether ``submit`` may stand in for the call of ``reward``."""
    return _stands_in(reward, "submit", "__call__")


def streams(backend: object) -> TypeGuard[Streams]:
    """Whether ``stream`` may stand in for ``generate`` of ``backend``."""
    return _stands_in(backend, "stream", "generate")


def _stands_in(component: object, offered: str, plain: str) -> bool:
    """Whether no class below the one that offers a method overrides the plain one alone.

    A subclass or a delegating wrapper that changes the plain method must have it called, whatever
    it inherits beside that.
    """
    for kind in type(component).__mro__:
        if offered in vars(kind):
            return True
        if plain in vars(kind):
            return False
    return False
