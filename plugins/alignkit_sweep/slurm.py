"""Runs of a sweep as a job array of SLURM, through submitit.

Of the libraries that were compared, submitit alone submits arrays, queues a job again after a time
limit, and needs no server that stays up. PSI/J submits each job by itself; Dask-Jobqueue and Parsl
keep a pool of workers that talk over the network; simple-slurm writes scripts and follows nothing.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from signal import Signals
from typing import Any

from alignkit.errors import AlignkitError
from alignkit.text.batch import refuse_unwritable
from alignkit_sweep.launchers import MOST, POLL, TAKEN_BACK, Command, Process, refuse_ranks

SEVERAL = frozenset({"nodes", "ntasks_per_node"})
"""Parameters by which several processes are asked for."""


class Element:
    """What one element of the array does. SLURM's signals reach the run it starts as well."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Carry the run out; return its exit status."""
        with self.command.log.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(  # nosec B603 # a list of words, no shell
                self.command.words(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        while (status := self._process.poll()) is None:
            time.sleep(POLL)
        return status

    def checkpoint(self) -> Any:
        """Let the run save its state; return what is to be called when the job runs again.

        submitit calls this in a handler of the signal that announces a time limit or pre-emption.
        """
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            with suppress(ChildProcessError):  # it has been waited for already
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(Element(self.command))


class Job:
    """An element of an array that was submitted."""

    def __init__(self, job: Any) -> None:
        self._job = job
        self._status: int | None = None

    def began(self) -> bool:
        return bool(self._job.paths.stdout.exists())

    def poll(self) -> int | None:
        if self._status is None and self._job.done():
            failure = self._job.exception()
            self._status = 1 if failure else int(self._job.result())
        return self._status

    def signal(self, number: int) -> None:
        if self.began():
            self._scancel(f"--signal={Signals(number).name}")
        else:
            self.kill()

    def wait(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            time.sleep(POLL)
        return self.poll() is not None

    def kill(self) -> None:
        self._scancel()
        self._status = TAKEN_BACK

    def _scancel(self, *options: str) -> None:
        command = ["scancel", *options, self._job.job_id]
        subprocess.run(command, check=False, stdin=subprocess.DEVNULL)  # nosec B603 B607 # words


class Slurm:
    """Submits runs as arrays; what submitit keeps is in the folder ``.slurm`` of the sweep."""

    room = MOST

    def __init__(self, out: Path, side_by_side: int, options: Mapping[str, Any]) -> None:
        """Prepare arrays of which ``side_by_side`` elements run at a time.

        ``options`` are parameters of submitit's SlurmExecutor: ``time`` in minutes, ``partition``,
        ``gpus_per_node`` … Raises AlignkitError for unknown ones or several processes, and without
        submitit or SLURM.
        """
        for name in SEVERAL & options.keys():
            refuse_ranks(name, options[name], str(options[name]) != "1")
        try:
            from submitit import SlurmExecutor
        except ImportError as error:
            raise AlignkitError(
                "--launcher slurm needs submitit: pip install 'alignkit[cluster]'"
            ) from error
        refuse_unwritable((str(out), *(v for v in options.values() if isinstance(v, str))))
        shared = {"time": 240, "job_name": out.name, "array_parallelism": side_by_side}
        try:
            self._executor = SlurmExecutor(out / ".slurm", max_num_timeout=10**6)
            self._executor.update_parameters(**{**shared, **options})
        except (RuntimeError, TypeError, ValueError) as error:
            raise AlignkitError(f"--launcher slurm: {error}") from error

    def start(self, commands: Sequence[Command]) -> Sequence[Process]:
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            with self._executor.batch():
                jobs = [self._executor.submit(Element(command)) for command in commands]
        except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError,
                OSError, TypeError, ValueError) as error:  # fmt: skip
            raise AlignkitError(f"SLURM does not take the runs: {error}") from error
        return [Job(job) for job in jobs]
