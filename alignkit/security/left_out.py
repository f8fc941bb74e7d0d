"""Check that ``-s`` gives a resumed run exactly the secrets that its recorded recipe lacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tomli

from alignkit.errors import AlignkitError, shown
from alignkit.security.recorded import lost


def only_secrets(recipe: Path, given: Sequence[str]) -> None:
    """Raise AlignkitError unless ``given`` holds ``key=value`` for each secret left out."""
    try:
        left_out = {".".join(key) for key in lost(tomli.loads(recipe.read_text(encoding="utf-8")))}
    except (OSError, ValueError):
        return  # loading the recipe reports what is wrong with it
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
