"""What a table keeps of the tables it is laid over when it chooses another component.

The values of the table are dropped; the tables below it stay, marked as inherited, until it is
known whether the new component has slots for them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from alignkit.errors import Origin

Key = tuple[str, ...]


def drop_values(
    under: dict[str, Any], over: Mapping[str, Any], at: Key, origin: Callable[[Key], Origin]
) -> tuple[dict[Key, Key], dict[Key, str]]:
    """Remove the values of the table ``under`` at ``at``, over which ``over`` is to be laid.

    Returns marks for what its tables hold, each with ``at``, and a note for each value removed.
    """
    marks: dict[Key, Key] = {}
    notes: dict[Key, str] = {}
    for name, value in list(under.items()):
        key = (*at, name)
        if _is_table(value):
            marks |= dict.fromkeys(_leaves(value, key), at)
        elif name not in over:
            reason = f"a value of {under['use']!r}; {over['use']!r} stands in its place"
            notes[key] = f"{'.'.join(key)} ({origin(key)}): {reason}"
            del under[name]
    return marks, notes


def fitting(
    given: Mapping[str, Any],
    at: Key,
    slots: Collection[str],
    inherited: Mapping[Key, Key],
    origin: Callable[[Key], Origin],
) -> tuple[dict[str, Any], list[str]]:
    """Return the table ``given`` at ``at`` without inherited tables that have no slot now.

    The second item has a note for each table of which something was left out.
    """
    kept, notes = dict(given), []
    marks = {key for key, changed in inherited.items() if changed == at}
    for name in [n for n in given if n not in slots]:
        key = (*at, name)
        own = _own(given[name], key, marks)
        if own != given[name]:
            reason = f"{given['use']!r} takes no such table"
            notes.append(f"[{'.'.join(key)}] ({origin(key)}): {reason}")
            kept[name] = own
    return kept, notes


def _own(value: Any, at: Key, marks: Collection[Key]) -> Any:
    """Return the part of a value that is not inherited; None if all of it is."""
    if at in marks:
        return None
    if not isinstance(value, dict) or not value:
        return value
    own = {name: _own(inner, (*at, name), marks) for name, inner in value.items()}
    return {name: inner for name, inner in own.items() if inner is not None} or None


def _is_table(value: Any) -> bool:
    """Whether a value is a table or an array of tables."""
    items = value if isinstance(value, list) else [value]
    return bool(items) and all(isinstance(item, dict) for item in items)


def _leaves(value: Any, at: Key) -> Iterator[Key]:
    """Yield the keys of everything in ``value`` that is not a table, and of empty tables."""
    if not isinstance(value, dict) or not value:
        yield at
        return
    for name, inner in value.items():
        yield from _leaves(inner, (*at, name))
