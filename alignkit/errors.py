"""Every error a user can cause: where it is, what was found, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from shlex import quote


class AlignkitError(Exception):
    """Base of all errors that are shown without a traceback."""

    exit_status = 2
    """What the command exits with: 2, the command or recipe is wrong; 1, the run failed."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value of a recipe comes from: a line of a file, or an override."""

    file: Path | None
    """The TOML file, or None for ``-s`` and for other options, which ``text`` then begins with."""
    line: int
    """1-based line in ``file``."""
    text: str
    """The source line, or the override as it was typed."""

    def __str__(self) -> str:
        typed = self.text if self.text.startswith("--") else f"-s {self.text}"
        return f"{shown(self.file)}:{self.line}" if self.file else typed


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a recipe."""

    key: tuple[str, ...]
    """Path of the key in the recipe; ``()`` is the recipe itself."""
    message: str
    hint: str = ""
    origin: Origin | None = None

    def __str__(self) -> str:
        """Render as ``file:line: key: message`` with the line quoted below."""
        where = f"{self.origin}: " if self.origin else ""
        lines = [f"{where}{'.'.join(part[:60] for part in self.key) or 'recipe'}: {self.message}"]
        if self.origin and self.origin.file and self.origin.text.strip():
            lines.append(f"  {self.origin.line:>4} | {self.origin.text.strip()}")
        return "\n".join([*lines, *([f"  {self.hint}"] if self.hint else [])])


class RecipeError(AlignkitError):
    """Everything wrong with one recipe, at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems, key=_position)
        super().__init__("\n".join(str(p) for p in self.problems))


class RunFailed(AlignkitError):
    """A run that had started could not be finished; its directory is kept."""

    exit_status = 1


class Said:
    """Mixed into an error whose message another rank of the run prints."""


class TransientError(AlignkitError):
    """Raised by a component if another try may help, for instance if a server is busy.

    The same call is made again, up to ``retries`` times: ``wait`` seconds later, and then after
    twice as long each time, up to a minute. Raise it before the call has changed anything.
    """

    exit_status = 1

    def __init__(self, message: str, *, retries: int = 5, wait: float = 1.0) -> None:
        super().__init__(message)
        self.retries, self.wait = retries, wait


def _position(problem: Problem) -> tuple[str, int]:
    origin = problem.origin
    return (str(origin.file or "~"), origin.line) if origin else ("", 0)


def shown(path: Path | None) -> str:
    """Return ``path`` as people type it: relative to the working directory if below it."""
    if path is None:
        return ""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def in_shell(path: Path) -> str:
    """Return :func:`shown` as a word of a shell's command line; no command takes it for an option.

    >>> print(in_shell(Path("my runs/one")), in_shell(Path("-v")))
    'my runs/one' ./-v
    """
    text = shown(path)
    return quote(f"./{text}" if text[:1] in "-~" else text)


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"``, or ``""`` when nothing is close.

    >>> did_you_mean("grpo_clp", ["grpo_clip", "reinforce"])
    " Did you mean 'grpo_clip'?"
    >>> did_you_mean("zzz", ["grpo_clip"])
    ''
    """
    close = get_close_matches(word, list(options), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""
