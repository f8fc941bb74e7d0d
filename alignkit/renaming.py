"""Keys that a recipe gives under the names of an earlier version."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from alignkit.component import Params, slots_of
from alignkit.document import Document, Key
from alignkit.errors import AlignkitError, Origin, Problem
from alignkit.kinds import KINDS
from alignkit.promises import MINORS_KEPT, Deprecation

Renames = Mapping[str, str | tuple[str, str]]
"""Old names, each with the present one, or with that and the release that renamed it."""

_RELEASE = re.compile(r"([0-9]+\.[0-9]+)(?:[.+a-z-][.+0-9a-z-]*)?")


@dataclass(frozen=True)
class Renamed:
    """A key that is set under its name in an earlier version."""

    key: Key
    now: str
    origin: Origin
    goes: str
    """Until when the old name works, such as ``"goes in alignkit 0.4"``."""

    def __str__(self) -> str:
        """Return where it is set, its present name, and until when the old one works."""
        message = f"is called {self.now!r} now; {self.key[-1]!r} {self.goes}"
        return str(Problem(self.key, message, origin=self.origin))


def present_name(renamed: Renames, old: str) -> str:
    """Return what ``old`` is called now."""
    found = renamed[old]
    return found if isinstance(found, str) else found[0]


def goes(renamed: Renames, old: str, dist: str) -> str:
    """Return until when ``old`` works, ``dist`` being the package whose releases count.

    >>> goes({"clip": ("cliprange", "0.2")}, "clip", "tempered")
    'goes in tempered 0.4'
    """
    found = renamed[old]
    if isinstance(found, str):
        return f"works for {MINORS_KEPT} minor releases of {dist}"
    return f"goes in {dist} {removed_in(found[1])}"


def removed_in(since: str) -> str:
    """Return the first release without a name that is renamed since ``since``.

    ValueError where ``since`` is no release such as ``"0.2"`` or ``"0.2.1"``.

    >>> removed_in("0.2")
    '0.4'
    """
    if not (found := _RELEASE.fullmatch(since)):
        raise ValueError(f"{since!r} is no release such as '0.2'")
    return Deprecation("", "", found[1]).removed_in


def schemas_of(params: type[Params[Any]]) -> Iterator[type[Params[Any]]]:
    """Yield a component's class and those of its tables of fixed shape."""
    yield params
    for slot in slots_of(params, KINDS).values():
        if slot.table:
            yield from schemas_of(slot.table)


def faults(renamed: Renames) -> Iterator[str]:
    """Yield what is wrong with how the renames are written."""
    for old, found in renamed.items():
        try:
            now, since = (found, "0.0") if isinstance(found, str) else found
            removed_in(since)
            right = isinstance(now, str)
        except (TypeError, ValueError):
            right = False
        if not right:
            yield (
                f"renamed[{old!r}] is {found!r}; write the present name and the release that "
                'renamed it, such as ("cliprange", "0.2")'
            )


def present_names(
    table: Mapping[str, Any], renamed: Renames, at: Key, document: Document, dist: str
) -> tuple[dict[str, Any], list[Renamed], list[Problem]]:
    """Return the values of the table at ``at`` under the present names of its keys.

    ``renamed`` is that of the component, which the package ``dist`` offers; the origins in
    ``document`` move with the values.
    Also returns what was renamed, and a problem for each key that is given under both names.
    AlignkitError where ``renamed`` is not written as it should be.
    """
    for fault in faults(renamed):
        where = ".".join(at) or "the recipe"
        raise AlignkitError(f"{where}: the plugin of {dist} has a fault: {fault}")
    given, found, problems = dict(table), [], []
    for old in [old for old in renamed if old in given]:
        new = present_name(renamed, old)
        key, present = (*at, old), (*at, new)
        origin = document.origin(key)
        if new in given:
            message = f"{old!r} is called {new!r} now, and both are given; take it out"
            problems.append(Problem(key, message, origin=origin))
        found.append(Renamed(key, new, origin, goes(renamed, old, dist)))
        document.origins = {
            (*present, *k[len(key) :]) if k[: len(key)] == key else k: where
            for k, where in document.origins.items()
        }
        given[new] = given.pop(old)
    return given, found, problems
