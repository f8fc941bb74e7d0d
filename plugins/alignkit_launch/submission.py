"""Save a job's script and submit it to the scheduler."""

from __future__ import annotations

import shutil
import subprocess
from itertools import count
from pathlib import Path

from alignkit.errors import AlignkitError, RunFailed, shown
from alignkit.lifecycle.files import write_whole

PROGRAMS = {"slurm": ("sbatch", "--parsable"), "pbs": ("qsub",)}


def keep(script: Path, text: str) -> Path | None:
    """Write the script. If the file exists with another content, rename it; return its new path."""
    before = None
    try:
        script.parent.mkdir(parents=True, exist_ok=True)
        if script.exists() and script.read_bytes() != text.encode():
            before = free_name(script)
            script.rename(before)
        write_whole(script, text)
        script.chmod(0o755)
    except OSError as error:
        raise AlignkitError(f"cannot write {shown(script)}: {error.strerror}") from error
    return before


def free_name(path: Path) -> Path:
    """Return the first of ``NAME.1``, ``NAME.2`` … that is free."""
    return next(p for n in count(1) if not (p := path.with_name(f"{path.name}.{n}")).exists())


def submit(scheduler: str, script: Path) -> str:
    """Submit the script and return the job's id.

    Raises AlignkitError where the scheduler's program is missing or cannot be started, RunFailed
    where it refuses or names no job.
    """
    program, *options = PROGRAMS[scheduler]
    found = shutil.which(program)
    if found is None:
        raise AlignkitError(
            f"{program} is not on this machine; submit {shown(script)} on one that has it"
        )
    command = [found, *options, str(script)]
    try:
        done = subprocess.run(  # nosec B603 # words
            command, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    except OSError as error:
        raise AlignkitError(f"cannot start {found}: {error.strerror}") from error
    if done.returncode:
        raise RunFailed(f"{program} refused {shown(script)}: {done.stderr.strip()}")
    number = done.stdout.strip().partition(";")[0]
    if not number:
        raise RunFailed(
            f"{program} accepted {shown(script)} but printed no job id, so look for the job in the "
            f"queue: {done.stderr.strip()}"
        )
    return number


def run_here(script: Path) -> int:
    """Run the script on this machine; return its exit status."""
    bash = shutil.which("bash") or "/bin/bash"
    return subprocess.run([bash, str(script)], check=False).returncode  # nosec B603 # words
