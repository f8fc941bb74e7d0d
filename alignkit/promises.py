"""What plugins may rely on: the version of the interface, and how public names are retired.

Public is what ``__all__`` lists in the modules of :data:`PUBLIC`, with the hooks and the documented
keys of recipes. A public name that is to go or to change keeps working for two minor releases of
alignkit, and warns in that time which name replaces it.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

API = "1.0"
"""Version of the interface. The first number grows when something public is taken away or changes
its meaning, the second when something is added. It is apart from the version of the release."""

PUBLIC = (
    "alignkit", "alignkit.protocols", "alignkit.episodes", "alignkit.testing", "alignkit.training",
    "alignkit.engine",
)  # fmt: skip
"""The modules whose ``__all__`` is public."""

MINORS_KEPT = 2
"""Minor releases in which a deprecated name works."""
LEVEL = 2
"""Stack level of a warning: the line that used the name, not the one that warns."""

_DECLARED = re.compile(r"""^ALIGNKIT_API\s*(?::[^=\n]*)?=\s*["'](\d+)\.(\d+)["']""", re.MULTILINE)

P = ParamSpec("P")
T = TypeVar("T")


class AlignkitDeprecationWarning(FutureWarning):
    """A public name was used that goes in a later release; the message names its replacement."""


@dataclass(frozen=True, slots=True)
class Deprecation:
    """That a public name goes."""

    name: str
    """The name, with its module: ``alignkit.protocols.Old``."""
    instead: str
    """What replaces it, in the same form, or a few words."""
    since: str
    """The first release that warns, such as ``"0.2"``."""

    @property
    def removed_in(self) -> str:
        """The first release that may do without the name.

        >>> Deprecation("alignkit.old", "alignkit.new", "0.2").removed_in
        '0.4'
        """
        major, minor = self.since.split(".")[:2]
        return f"{major}.{int(minor) + MINORS_KEPT}"

    def __str__(self) -> str:
        return (
            f"{self.name} is deprecated since alignkit {self.since}; use {self.instead}. "
            f"It goes in alignkit {self.removed_in}"
        )

    def warn(self, level: int = LEVEL) -> None:
        """Warn at the line of the caller's caller, or ``level`` frames up."""
        warnings.warn(str(self), AlignkitDeprecationWarning, stacklevel=level + 1)


def deprecated(instead: str, since: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a function that goes: it works as before, and each call warns.

    The ``Deprecation`` is in the attribute ``__deprecation__`` of what is returned.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        notice = Deprecation(f"{function.__module__}.{function.__qualname__}", instead, since)

        @functools.wraps(function)
        def warning(*args: P.args, **kwargs: P.kwargs) -> T:
            notice.warn()
            return function(*args, **kwargs)

        warning.__dict__["__deprecation__"] = notice
        return warning

    return decorate


def moved(module: str, names: Mapping[str, tuple[str, str]]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for ``module`` that still finds names which are elsewhere now.

    ``names`` maps an old name to its replacement, ``"package.module.name"``, and the release since
    which the old name warns::

        __getattr__ = moved(__name__, {"Old": ("alignkit.protocols.New", "0.2")})
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        instead, since = names[name]
        Deprecation(f"{module}.{name}", instead, since).warn()
        owner, _, attribute = instead.rpartition(".")
        return getattr(import_module(owner), attribute)

    return find


def built_for(source: str) -> tuple[int, int] | None:
    """Return the interface that a plugin's source says it is built for, None if it does not.

    The plugin says so in a line of its module, which is read before the module runs.

    >>> built_for('ALIGNKIT_API = "1.2"')
    (1, 2)
    """
    found = _DECLARED.search(source)
    return (int(found[1]), int(found[2])) if found else None


def unmet_api(source: str, ours: str = API) -> str:
    """Return why a plugin with this source does not fit the interface ``ours``, or ``""``."""
    wanted = built_for(source)
    if wanted is None:
        return ""
    major, minor = map(int, ours.split("."))
    if wanted[0] == major and wanted[1] <= minor:
        return ""
    remedy = "upgrade alignkit" if wanted > (major, minor) else "get a newer version of the plugin"
    return (
        f"is built for API {wanted[0]}.{wanted[1]} of alignkit, but this alignkit has API {ours}; "
        f"{remedy}"
    )


def source_of(module: str) -> str:
    """Return the source of a module that is not imported, ``""`` where there is none to read."""
    top, *rest = module.split(".")
    with suppress(ImportError, ValueError):  # a module made up in memory has no spec
        spec = find_spec(top)
        for part in rest:
            places = spec.submodule_search_locations if spec else None
            spec = PathFinder.find_spec(part, places) if places else None
        if spec and spec.origin and spec.origin.endswith(".py"):
            return Path(spec.origin).read_text(encoding="utf-8", errors="replace")
    return ""
