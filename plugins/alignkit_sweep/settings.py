"""Single values that a sweep sets in a recipe, and their names."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alignkit.document import Document, Key
from alignkit.errors import Origin, Problem, RecipeError, shown
from alignkit.security.names import LONGEST, file_name

How = Literal["grid", "factors", "same_as"]
ROOM = LONGEST // 2 + 16
"""Bytes of a name that are left for others: variant and seed are joined to it in one name."""
HOW: tuple[How, ...] = ("grid", "factors", "same_as")


@dataclass(frozen=True)
class Setting:
    """One value of a grid point."""

    key: Key
    value: Any
    how: How
    """``value`` is the value, or multiplies what the recipe says, or names another key of it."""
    origin: Origin


def leaves(table: Mapping[str, Any], at: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Yield key and value of everything in a nested table that is no table."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, (*at, name))
        else:
            yield (*at, name), value


def label(varied: Sequence[Setting]) -> str:
    """Return ``lr=0.0001,n_steps_x0.5``: names without what stands before the last dot.

    Where two names would be the same, both are whole.
    """
    keys = [s.key[:-1] if s.key[-1] == "use" and len(s.key) > 1 else s.key for s in varied]
    last = [key[-1] for key in keys]
    names = [key[-1] if last.count(key[-1]) == 1 else ".".join(key) for key in keys]
    parts = (f"{name}{_shown(s)}" for name, s in zip(names, varied, strict=True))
    return file_name(",".join(parts), room=ROOM) if varied else ""


def _shown(setting: Setting) -> str:
    text = setting.value if isinstance(setting.value, str) else json.dumps(setting.value)
    return f"_x{text}" if setting.how == "factors" else f"={text}"


def below(document: Document, at: Key) -> Document:
    """Return a sub-table as a document of its own, its values knowing where they stand."""
    table: Any = document.table
    for name in at:
        table = table.get(name, {})
    origins = {k[len(at) :]: o for k, o in document.origins.items() if k[: len(at)] == at}
    return Document(table, origins, document.path)


def layer(key: Key, value: Any, origin: Origin) -> Document:
    """Return one value as a document of its own."""
    table = value
    for name in reversed(key):
        table = {name: table}
    return Document(table, {key[:n]: origin for n in range(1, len(key) + 1)})


def value(setting: Setting, base: Document) -> Any:
    """Return a setting's value, computed from the recipe's where it is relative to that."""
    own = dict(leaves(base.table))
    try:
        if setting.how == "same_as":
            return own[tuple(setting.value.split("."))]
        return setting.value if setting.how == "grid" else _times(setting, own[setting.key])
    except KeyError as error:
        key = ".".join(error.args[0])
        message = f"this is relative to {key!r}, which {shown(base.path)} does not set"
        raise RecipeError([Problem(setting.key, message, origin=setting.origin)]) from None


def _times(setting: Setting, own: Any) -> Any:
    """Return a factor times the recipe's value; of an integer, an integer."""
    numbers = all(type(x) in (int, float) for x in (own, setting.value))
    value = float(f"{own * setting.value:.6g}") if numbers else math.nan
    if math.isfinite(value) and isinstance(own, float):
        return value
    if value.is_integer():
        return int(value)
    message = f"{setting.value!r} times the recipe's {own!r} is no such number"
    raise RecipeError([Problem(setting.key, message, origin=setting.origin)])
