"""A batch job: the resources it asks for, and its script."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from alignkit.errors import AlignkitError, shown
from alignkit.text.batch import in_directive, refuse_unwritable

TEMPLATES = Path(__file__).parent / "templates"
_TIME = re.compile(r"\A(?:(\d{1,3})-)?(\d{1,4}):([0-5]\d):([0-5]\d)\Z", re.ASCII)


@dataclass(frozen=True)
class Job:
    """One run as a batch job: its processes, its limits, and its commands."""

    scheduler: str
    """The name of one of the templates: "local", "pbs" or "slurm"."""
    begin: Sequence[str]
    """Arguments of ``alignkit`` that begin the run."""
    go_on: Sequence[str]
    """Arguments of ``alignkit`` that resume it."""
    out: Path
    """Run directory, absolute."""
    nodes: int = 1
    gpus: int = 0
    """Per node."""
    processes: int = 1
    """Per node; several processes are the ranks of one run."""
    cpus: int = 1
    """Cores per process."""
    seconds: int = 3600
    """Limit of wall-clock time."""
    grace: int = 120
    """Seconds before the limit at which the run is told to save its state and stop."""
    memory: str = ""
    """Per node, in the scheduler's own notation; "" = its default, here and below."""
    queue: str = ""
    account: str = ""
    directives: Sequence[str] = ()
    """Further options for the scheduler, as written after ``#SBATCH`` or ``#PBS``."""
    folder: Path = field(default_factory=Path.cwd)
    """Directory in which the job works."""
    python: str = sys.executable

    def __post_init__(self) -> None:
        """Raise AlignkitError if an option cannot be written into the script."""
        if not 0 < self.grace < self.seconds:
            raise AlignkitError(
                f"--grace {self.grace}: give at least 1 second and less than the time limit of "
                f"{self.seconds}"
            )
        asked = (self.memory, self.queue, self.account, *self.directives)
        refuse_unwritable((*asked, str(self.out), str(self.folder)))
        for word in (*self.begin, *self.go_on, self.python):
            if any("\ud800" <= letter <= "\udfff" for letter in word):
                raise AlignkitError(f"{word!r} cannot be written as UTF-8; rename it")

    @property
    def name(self) -> str:
        """The job's name, in characters that every scheduler accepts."""
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", self.out.name)[:100]
        return name if name[:1].isalpha() else f"run-{name}"

    @property
    def script(self) -> Path:
        """Where the script is kept: beside the run directory."""
        return self.out.with_name(f"{self.out.name}.{self.scheduler}.sh")

    @property
    def ranks(self) -> int:
        """Processes on all nodes."""
        return self.nodes * self.processes

    def text(self, template: Path | None = None) -> str:
        """Return the script, made from ``template``, by default the scheduler's in this package.

        Raises AlignkitError where the template cannot be read or filled in.
        """
        file = template or TEMPLATES / f"{self.scheduler}.sh"
        environment = Environment(  # nosec B701 # a shell script, not HTML; | q quotes its values
            undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
            keep_trailing_newline=True, comment_start_string="{##", comment_end_string="##}",
        )  # fmt: skip
        environment.filters |= {"q": _quoted, "clock": clock, "directive": in_directive}
        try:
            return environment.from_string(file.read_text(encoding="utf-8")).render(job=self)
        except OSError as error:
            raise AlignkitError(f"cannot read {shown(file)}: {error.strerror}") from error
        except AlignkitError:
            raise
        except Exception as error:  # a template is a program: it can fail in any way
            raise AlignkitError(f"{shown(file)} cannot be filled in: {error}") from error


def _quoted(value: Any) -> str:
    """Quote a word, or each of several words, for the shell."""
    return shlex.quote(str(value)) if isinstance(value, str | Path) else shlex.join(value)


def clock(seconds: int) -> str:
    """Write seconds as H:MM:SS, which all schedulers accept.

    >>> clock(5400)
    '1:30:00'
    """
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def seconds_in(text: str) -> int:
    """Return the seconds of ``H:MM:SS`` or ``D-HH:MM:SS``; ValueError if it is neither.

    >>> seconds_in("1:30:00"), seconds_in("2-00:00:00")
    (5400, 172800)
    """
    found = _TIME.match(text)
    if not found:
        raise ValueError(f"{text!r} is no time: write H:MM:SS or D-HH:MM:SS")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
