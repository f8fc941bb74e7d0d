"""The secrets that the record of a recipe leaves out, and that a run needs again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tomli

from alignkit.errors import AlignkitError, shown
from alignkit.security.recorded import lost


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
