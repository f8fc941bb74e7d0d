"""Runs of a sweep as job arrays of PBS.

Our own: no kept library submits arrays to PBS (submitit knows SLURM alone, PSI/J no arrays). What
is asked of PBS is little: an element writes its exit status to a file, and that is what is read.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from signal import Signals

from alignkit.errors import AlignkitError, shown
from alignkit.lifecycle.files import write_whole
from alignkit.lifecycle.signals import STOPPED
from alignkit.text.batch import in_directive, refuse_unwritable
from alignkit_sweep.launchers import MOST, POLL, TAKEN_BACK, Command, Process, refuse_ranks

ASK = 60.0
"""Seconds between questions to PBS about a job that has left no exit status."""
GRACE = 120
"""Seconds before its time limit at which a run is told to save its state and stop."""
SEVERAL = {
    "select": re.compile(r"^\s*0*([2-9]|1\d)\d*\b|\+|mpiprocs=0*([2-9]|1\d)"),
    "nodes": re.compile(r"^\s*0*([2-9]|1\d)\d*\b|\+|ppn=0*([2-9]|1\d)"),
}
"""Values of resources by which PBS is asked for several chunks of nodes, or processes."""
SCRIPT = """#!/bin/bash
{directives}
set -u
trap : TERM INT HUP # the run gets them too: wait until it has saved its state
cd {here} || exit 1
folder={folder}
case "${{PBS_ARRAY_INDEX:-0}}" in
{cases}
esac
: >"$folder/$element.began"
timeout --preserve-status --signal=USR1 {limit} "${{command[@]}}" >>"$log" 2>&1
echo $? >"$folder/$element.partial"
mv "$folder/$element.partial" "$folder/$element.status"
"""


class Job:
    """An element of an array that was submitted; one that stops at its limit is submitted again."""

    def __init__(self, array: Pbs, command: Command, number: str, files: Path) -> None:
        self._array, self._command = array, command
        self._number, self._files = number, files
        self._status: int | None = None
        self._asked = time.monotonic()

    def began(self) -> bool:
        return self._files.with_suffix(".began").exists()

    def poll(self) -> int | None:
        if self._status is None:
            self._status = self._found()
            if self._status == STOPPED:
                self._number, self._files = self._array.submit([self._command])[0]
                self._status = None
        return self._status

    def _found(self) -> int | None:
        file = self._files.with_suffix(".status")
        if file.is_file():
            return int(file.read_text())
        if time.monotonic() - self._asked > ASK:
            self._asked = time.monotonic()
            known = _pbs("qstat", self._number).returncode == 0
            if not known and not file.is_file():
                return 1
        return None

    def signal(self, number: int) -> None:
        if self.began():
            _pbs("qsig", "-s", Signals(number).name, self._number)
        else:
            self.kill()

    def wait(self, seconds: float) -> bool:
        """Wait for the end; here one that stops, to be resumed, has ended."""
        end = time.monotonic() + seconds
        while self._status is None and time.monotonic() < end:
            self._status = self._found()
            time.sleep(POLL)
        return self._status is not None

    def kill(self) -> None:
        _pbs("qdel", self._number)
        self._status = TAKEN_BACK


class Pbs:
    """Submits runs as arrays; their scripts and exit statuses are in ``.pbs`` of the sweep."""

    room = MOST

    def __init__(self, out: Path, side_by_side: int, options: Mapping[str, str]) -> None:
        """Prepare arrays of which ``side_by_side`` elements run at a time.

        ``options``: ``walltime`` as H:MM:SS (4:00:00 unless given), ``queue``, ``account``; any
        other is a resource, such as ``select``. Raises AlignkitError where there is no PBS, where
        a line of the script could not hold an option or ``out``, or for several processes.
        """
        if not shutil.which("qsub"):
            raise AlignkitError("--launcher pbs: qsub is not on this machine")
        refuse_unwritable((str(out), *options, *options.values()))
        in_directive(out)
        for name in SEVERAL.keys() & options.keys():
            refuse_ranks(name, options[name], bool(SEVERAL[name].search(options[name])))
        self._out, self._most = out, side_by_side
        self._asked = {"walltime": "4:00:00", **options}
        limit = re.fullmatch(r"(\d{1,4}):([0-5]\d):([0-5]\d)", self._asked["walltime"], re.ASCII)
        if not limit:
            raise AlignkitError(f"walltime={self._asked['walltime']}: write it as H:MM:SS")
        hours, minutes, seconds = map(int, limit.groups())
        self._limit = (hours * 60 + minutes) * 60 + seconds - GRACE
        if self._limit <= 0:
            raise AlignkitError(f"walltime={self._asked['walltime']}: more than {GRACE} seconds")

    def start(self, commands: Sequence[Command]) -> Sequence[Process]:
        submitted = zip(commands, self.submit(commands), strict=True)
        return [Job(self, command, number, files) for command, (number, files) in submitted]

    def submit(self, commands: Sequence[Command]) -> list[tuple[str, Path]]:
        """Submit an array; return each element's number at PBS, and its files without ending."""
        folder = self._new_folder()
        script = folder / "array.sh"
        write_whole(script, self.script(commands, folder))
        done = _pbs("qsub", str(script))
        if done.returncode:
            raise AlignkitError(f"qsub refused {shown(script)}: {done.stderr.strip()}")
        number = done.stdout.strip()
        if not number:
            raise AlignkitError(
                f"qsub accepted {shown(script)} but printed no job id, so look for the job in the "
                f"queue: {done.stderr.strip()}"
            )
        head, dot, server = number.partition("[]")
        each = [f"{head}[{n}]{server}" if dot else number for n in range(len(commands))]
        return [(name, folder / str(n)) for n, name in enumerate(each)]

    def script(self, commands: Sequence[Command], folder: Path) -> str:
        """Return the script of an array, an element for each command."""
        cases = [
            f"{n}) element={n} log={shlex.quote(str(c.log))} command=({shlex.join(c.words())}) ;;"
            for n, c in enumerate(commands)
        ]
        return SCRIPT.format(
            directives="\n".join(self._directives(len(commands), folder)),
            here=shlex.quote(str(Path.cwd())),
            folder=shlex.quote(str(folder)), cases="\n".join(cases), limit=self._limit,
        )  # fmt: skip

    def _directives(self, elements: int, folder: Path) -> list[str]:
        named = {"queue": "q", "account": "A"}
        lines = ["-N sweep", "-r y", "-j oe", f"-o {in_directive(folder)}"]
        lines += [f"-J 0-{elements - 1}%{self._most}"] * (elements > 1)
        for key, value in self._asked.items():
            lines.append(f"-{named[key]} {value}" if key in named else f"-l {key}={value}")
        return [f"#PBS {line}" for line in lines]

    def _new_folder(self) -> Path:
        for n in count(1):
            folder = self._out / ".pbs" / str(n)
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            return folder
        raise AssertionError


def _pbs(*words: str) -> subprocess.CompletedProcess[str]:
    """Call one of PBS's programs; AlignkitError if it cannot be started."""
    try:
        return subprocess.run(  # nosec B603 # a list of words, no shell
            words, capture_output=True, encoding="utf-8", errors="replace", check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        raise AlignkitError(f"cannot start {words[0]}: {error.strerror}") from error
