"""Progress in the terminal: a live display where there is one, lines of text elsewhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from alignkit.security.text import printable
from alignkit_trackers.values import clock, headline, number, time_shares

if TYPE_CHECKING:
    from alignkit.protocols import Run

KEY_RESULTS = ("eval/answer_reward", "eval/reward", "train/reward", "train/loss")
"""The first of these that a run logs is summed up in its last line."""


def _any_of(metrics: Mapping[str, float]) -> list[str]:
    """Return a line's worth of metrics of an algorithm that logs none of those asked for."""
    return [name for name in metrics if name.partition("/")[0] != "time"][:6]


class Pace:
    """How far a run is, and when it will end."""

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.step = 0
        self._first: tuple[int, float] | None = None
        self._last = (0, 0.0)

    def see(self, step: int, seconds: float) -> None:
        """Note that ``step`` was done ``seconds`` after the start."""
        self._first = self._first or (step, seconds)
        self.step, self._last = step, (step, seconds)

    def left(self, now: float) -> float | None:
        """Return the seconds left at the mean pace so far, None before two steps are known."""
        if self._first is None or self.total is None or self.step <= self._first[0]:
            return None
        per_step = (self._last[1] - self._first[1]) / (self.step - self._first[0])
        due = self._last[1] + per_step * (self.total - self.step)
        return max(0.0, due - now)

    def __str__(self) -> str:
        return f"step {self.step}" + (f"/{self.total}" if self.total else "")

    @property
    def column(self) -> str:
        """The step, as wide at the first as at the last."""
        return str(self).rjust(len(f"step {self.total}/{self.total}") if self.total else 0)


class ConsoleTracker:
    """Shows a run as it goes; see :class:`alignkit_trackers.Console`."""

    def __init__(self, patterns: Sequence[str], every: int, console: Console | None = None) -> None:
        self._patterns, self._every = patterns, every
        self._console = console or Console()
        self._pace = Pace(None)
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._history: dict[str, list[float]] = {}
        self._live: Live | None = None
        self._line = ""

    def start(self, run: Run, /) -> None:
        """Take over the terminal if there is one, and the printing of ``run.say`` with it."""
        self._pace = Pace(run.total_steps)
        self._run, self._print = run, run.printer
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                get_renderable=self._screen,
                console=self._console,
                refresh_per_second=2,
                transient=True,
            )
            self._live.start()
            run.printer = self._above

    def log(self, step: int, metrics: Mapping[str, float], /) -> None:
        """Show a row of metrics."""
        self._pace.total = self._run.total_steps  # some algorithms count their data first
        self._pace.see(step, metrics["time"])
        self._remember(metrics)
        line = headline(metrics, self._patterns) or headline(metrics, _any_of(metrics))
        self._line = printable(line)  # names of metrics come from recipes and plugins
        evaluated = {n: value for n, value in metrics.items() if n.startswith("eval/")}
        if self._live is None and (evaluated or step % self._every == 0):
            self._run.say(f"{self._pace.column}  {self._line}  [{self._times(metrics['time'])}]")
        elif self._live is not None and evaluated:  # stays above the display, which goes on
            self._run.say(f"{self._pace.column}  {headline(evaluated, self._patterns)}")

    def rollouts(self, step: int, name: str, rows: Sequence[Mapping[str, Any]], /) -> None:
        """Show nothing: samples are for files, not for a terminal."""

    def close(self, status: Literal["done", "failed"], /) -> None:
        """Give the terminal back and sum the run up in a line."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._run.printer = self._print
        self._run.say(self._summary(status))

    def _remember(self, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if name.startswith("time/"):
                self._seconds[name.removeprefix("time/")] += value
            elif name in KEY_RESULTS:
                self._history.setdefault(name, []).append(value)

    def _summary(self, status: str) -> str:
        parts = [f"{'done' if status == 'done' else 'stopped'}: {self._pace}"]
        parts[0] += f" in {clock(self._run.elapsed())}"
        for name in KEY_RESULTS:
            if values := self._history.get(name):
                ends = values if len(values) == 1 else [values[0], values[-1]]
                parts.append(f"{name} {' -> '.join(map(number, ends))}")
                break
        if self._seconds:
            parts.append(f"time: {time_shares(self._seconds)}")
        return "; ".join(parts)

    def _times(self, now: float) -> str:
        left = self._pace.left(now)
        return f"{clock(now)}" + ("" if left is None else f", {clock(left)} left")

    def _screen(self) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        bar = ProgressBar(self._pace.total, self._pace.step, width=30, pulse=not self._pace.total)
        grid.add_row(self._pace.column, bar, self._times(self._run.elapsed()))
        return Group(grid, Text(self._line, style="dim"))

    def _above(self, text: str) -> None:
        """Print above the live display, as it stands: no markup, no wrapping."""
        self._console.out(text, highlight=False)
