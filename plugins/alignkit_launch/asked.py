"""From the options of the command line to a job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alignkit.errors import AlignkitError, shown
from alignkit.lifecycle.run_dir import RECIPE
from alignkit.security.names import file_name
from alignkit_launch.job import Job


def job_for(
    path: Path,
    overlays: Sequence[Path],
    overrides: Sequence[str],
    out: Path | None,
    plugged: Sequence[str],
    *,
    scheduler: str,
    nodes: int,
    gpus: int,
    processes: int | None,
    cpus: int,
    seconds: int,
    grace: int,
    memory: str | None,
    queue: str | None,
    account: str | None,
    directives: Sequence[str],
    allow_changes: bool,
) -> Job:
    """Return the job that runs a recipe in ``out``, or resumes the run that is there.

    ``plugged`` are the ``-p`` options that add plugins or leave them out. Raises AlignkitError if
    the scheduler cannot do what is asked for, or ``out`` holds something else than a run.
    """
    if scheduler == "local" and nodes > 1:
        raise AlignkitError("--scheduler local runs on this machine alone: set --nodes 1")
    folder = (out or Path("runs") / file_name(path.stem)).absolute()
    if folder.exists() and not folder.is_dir():
        raise AlignkitError(f"{shown(folder)} is a file; choose another --out")
    if folder.exists() and not (folder / RECIPE).is_file() and any(folder.iterdir()):
        raise AlignkitError(f"{shown(folder)} is not empty and holds no run; choose another --out")
    laid = [word for file in overlays for word in ("--with", str(file.absolute()))]
    values = [word for text in overrides for word in ("-s", text)]
    begin = ["run", str(path.absolute()), "--out", str(folder), *laid, *values, *plugged]
    changed = ["--allow-changes"] * allow_changes
    return Job(
        scheduler=scheduler, begin=begin, go_on=["resume", str(folder), *changed, *plugged],
        out=folder, nodes=nodes, gpus=gpus, processes=processes or max(1, gpus), cpus=cpus,
        seconds=seconds, grace=grace, memory=memory or "", queue=queue or "",
        account=account or "", directives=directives,
    )  # fmt: skip
