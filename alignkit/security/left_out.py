"""The secrets that the record of a recipe leaves out, and that a run needs again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli

from alignkit.errors import AlignkitError, shown
from alignkit.security.secrets import REDACTED


def only_secrets(recipe: Path, given: Sequence[str]) -> None:
    """Refuse, by an AlignkitError, unless ``given`` are the ``key=value`` left out of a record."""
    try:
        left_out = {".".join(key) for key in lost(tomli.loads(recipe.read_text(encoding="utf-8")))}
    except (OSError, ValueError):
        return  # whoever loads the recipe says what is wrong with it
    names = {item.partition("=")[0].strip() for item in given}
    if wrong := sorted(names - left_out):
        raise AlignkitError(
            f"a run is resumed as it was, or longer; -s cannot change {', '.join(wrong)}"
        )
    if lacking := sorted(left_out - names):
        raise AlignkitError(
            f"{shown(recipe)} leaves out secrets that the run needs; give them again: "
            f"{' '.join(f'-s {key}=…' for key in lacking)}"
        )


def lost(table: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the keys of a recorded recipe whose value was left out of the record."""
    if isinstance(table, Mapping):
        return [key for name, item in table.items() for key in lost(item, (*at, str(name)))]
    if isinstance(table, list):
        return [key for i, item in enumerate(table) for key in lost(item, (*at, str(i)))]
    return [at] if isinstance(table, str) and REDACTED in table else []
