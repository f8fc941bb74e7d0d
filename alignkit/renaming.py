"""Keys that a recipe gives under the names of an earlier version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alignkit.document import Document, Key
from alignkit.errors import Origin, Problem


@dataclass(frozen=True)
class Renamed:
    """A key that is set under its name in an earlier version."""

    key: Key
    now: str
    origin: Origin

    def __str__(self) -> str:
        """Return where it is set and its present name."""
        return str(Problem(self.key, f"is called {self.now!r} now", origin=self.origin))


def present_names(
    table: Mapping[str, Any], renamed: Mapping[str, str], at: Key, document: Document
) -> tuple[dict[str, Any], list[Renamed], list[Problem]]:
    """Return the values of the table at ``at`` under the present names of its keys.

    ``renamed`` maps old names to present ones; the origins in ``document`` move with the values.
    Also returns what was renamed, and a problem for each key that is given under both names.
    """
    given, found, problems = dict(table), [], []
    for old, new in renamed.items():
        if old not in given:
            continue
        key, present = (*at, old), (*at, new)
        origin = document.origin(key)
        if new in given:
            message = f"{old!r} is called {new!r} now, and both are given; take it out"
            problems.append(Problem(key, message, origin=origin))
        found.append(Renamed(key, new, origin))
        document.origins = {
            (*present, *k[len(key) :]) if k[: len(key)] == key else k: where
            for k, where in document.origins.items()
        }
        given[new] = given.pop(old)
    return given, found, problems
