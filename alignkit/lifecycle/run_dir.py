"""Choose a free run directory to start in, and tell whether a run was begun in one."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from alignkit.errors import AlignkitError, in_shell, shown
from alignkit.lifecycle.fingerprint import NAME as FINGERPRINT
from alignkit.lifecycle.manifest import Manifest

RECIPE = "recipe.toml"
"""Written last when a run starts: a directory without it never began."""
METRICS = "metrics.jsonl"
BEFORE_THE_RUN = {".lock", FINGERPRINT, "manifest.json"}


def begun(folder: Path) -> bool:
    """Whether a run was started in ``folder``, so that it can be resumed."""
    return (folder / RECIPE).is_file()


def is_free(folder: Path) -> bool:
    """Whether a run may start in ``folder``: absent, empty, or abandoned before a run began."""
    if not folder.is_dir():
        return not folder.exists()
    left = {p.name for p in folder.iterdir()} - BEFORE_THE_RUN
    return all(name.endswith(".partial") for name in left)


def folder_for(out: Path | None, recipe: Path) -> Path:
    """Return the directory to run in: ``out``, which must be free, or a new one below runs/."""
    if out is None:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        # So much of its name that, with the time, it has no more bytes than a name may have.
        names = (f"{recipe.stem[:50]}-{stamp}{f'-{n}' if n > 1 else ''}" for n in range(1, 1000))
        return next(p for n in names if not (p := Path.cwd() / "runs" / n).exists())
    if is_free(out):
        return out.absolute()
    if begun(out) and manifest_of(out).facts.get("status") != "done":
        raise AlignkitError(
            f"{shown(out)} holds a run that is not finished; go on with it: "
            f"alignkit resume {in_shell(out)}"
        )
    raise AlignkitError(f"{shown(out)} exists and is not empty; choose another --out")


def manifest_of(folder: Path) -> Manifest:
    """Return the manifest of a run to resume; AlignkitError if there is none."""
    if not begun(folder):
        raise AlignkitError(
            f"{shown(folder)} holds no run that could be resumed: there is no {RECIPE} in it; "
            f"`alignkit run` starts one"
        )
    try:
        return Manifest.read(folder)
    except (OSError, ValueError) as error:
        raise AlignkitError(f"{shown(folder)}/manifest.json cannot be read: {error}") from error
