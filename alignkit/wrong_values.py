"""Messages for what is wrong in a table of a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from alignkit.component import Slot
from alignkit.errors import did_you_mean


def described(
    error: ValidationError, name: str, allowed: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Yield key (below the table), message and hint for each value that a schema refuses.

    ``name`` is what the table is called, ``allowed`` the keys it may have.
    """
    for detail in error.errors():
        at = tuple(str(part) for part in detail["loc"])
        if detail["type"] == "extra_forbidden":
            message = f"{name!r} takes no {at[-1]!r}.{did_you_mean(at[-1], allowed)}"
            yield at, message, f"it takes: {', '.join(allowed)}"
        elif detail["type"] == "missing":
            yield (), f"{name!r} needs a value for {'.'.join(at)!r}", ""
        else:
            yield at, f"{detail['msg']} (got {detail['input']!r:.200})", ""


def lacks_table(use: str, key: Sequence[str], slot: Slot, names: Sequence[str]) -> str:
    """Return the message for a component ``use`` without a table that it needs.

    ``key`` is the table's key, ``names`` those of the components to choose from.
    """
    known = ", ".join(names) or "none"
    choices = f" choosing a {slot.kind}. Known: {known}." if slot.kind else "."
    instead = f" [{slot.unless}] does in its place." if slot.unless else ""
    return f"{use!r} needs a table [{'.'.join(key)}]{choices}{instead}"
