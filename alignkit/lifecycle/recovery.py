"""Find a run directory that was moved during the run, or create it again if it was deleted."""

from __future__ import annotations

import os
from pathlib import Path

from alignkit.errors import shown
from alignkit.lifecycle.place import Place
from alignkit.lifecycle.run_dir import METRICS


def recovered(place: Place, metrics: str) -> tuple[Path, str]:
    """Return where the run's state can be saved from now on, and what happened to the directory.

    That is where it was moved to, or the old path, which is then created anew with ``metrics``, the
    rows logged so far. Raises OSError if it cannot be created.
    """
    before, there = shown(place.folder), _moved_to(place)
    if there is not None:
        return there, f"{before} was moved to {shown(there)} while the run was at work"
    _make_again(place, metrics)
    return place.folder, (
        f"{before}, or metrics.jsonl in it, was deleted while the run was at work; it was made "
        f"again with recipe and metrics, but earlier checkpoints and samples may be gone"
    )


def _moved_to(place: Place) -> Path | None:
    """Return where the directory is now; None if it is deleted, or this cannot be determined."""
    try:
        there = Path(os.readlink(f"/proc/self/fd/{place.held}"))
        same = os.path.samestat(there.stat(), os.fstat(place.held))
    except OSError:
        return None
    return there if same and (there / METRICS).is_file() else None


def _make_again(place: Place, metrics: str) -> None:
    """Create the directory at its old path, with all that resuming needs but a checkpoint."""
    place.folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**place.kept, METRICS: metrics.encode()}.items():
        (place.folder / name).write_bytes(content)
