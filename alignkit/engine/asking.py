"""Calls of a recipe's components: whose error it is, and another try where a component asks for it.

An exception passes through here as it is, with a note of the component that it came from. One that
is a :class:`~alignkit.errors.TransientError` is first answered by further calls. A process that a
component forked, and that comes back from the call as if it were the run, is ended here.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from traceback import FrameSummary, extract_tb
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from alignkit.errors import TransientError, shown
from alignkit.lifecycle.signals import Interrupted
from alignkit.protocols import Closes, Tracker

if TYPE_CHECKING:
    from alignkit.protocols import Run

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("alignkit")

LONGEST = 60.0
"""Seconds waited at most before another try."""
_NOTE = "_alignkit_source"
_CORE = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Source:
    """The component that an exception came from."""

    word: str
    """What a message calls its kind, such as ``reward``."""
    component: object


def ask(
    word: str, component: object, function: Callable[P, T], /, *args: P.args, **named: P.kwargs
) -> T:
    """Return what ``function`` of a component returns.

    After a TransientError it is called again, up to ``retries`` times, ``wait`` seconds later and
    twice as long each time, up to ``LONGEST``.
    """
    tries = 0
    while True:
        try:
            with blamed(word, component):
                return function(*args, **named)
        except TransientError as error:
            if tries >= error.retries:
                raise
            pause = min(error.wait * 2**tries, LONGEST)
            tries += 1
            logger.warning(
                "%s: %s; trying again in %g s (%d of %d)", word, error, pause, tries, error.retries
            )
        time.sleep(pause)


@contextmanager
def blamed(word: str, component: object) -> Iterator[None]:
    """Note the component on whatever the block raises, unless one within it was noted before."""
    process = os.getpid()
    try:
        yield
    except BaseException as error:
        if source_of(error) is None:
            setattr(error, _NOTE, Source(word, component))
        raise
    finally:
        if os.getpid() != process:
            logger.error("a process that was forked in a %s went on as the run: ended", word)
            os._exit(1)


@contextmanager
def closing(word: str, component: Closes) -> Iterator[None]:
    """Close a component however the block ends."""
    try:
        yield
    except BaseException:
        try:
            component.close()
        except Exception:  # what ended the block is told, and this beside it
            logger.warning("the %s could not be closed", word, exc_info=True)
        raise
    ask(word, component, component.close)


def source_of(error: BaseException | None) -> Source | None:
    """Return the component that raised ``error``, or what it was caused by, if one did."""
    while error is not None:
        found: Source | None = getattr(error, _NOTE, None)
        if found is not None:
            return found
        error = error.__cause__
    return None


def described(error: BaseException) -> str:
    """Return an exception in one line, with the file and line of the component's code.

    Of the calls that led to it, the last in the package, or file, where the component's code
    begins: what that calls in libraries tells less.
    """
    said = " ".join(str(error).split())
    name = type(error).__name__
    frame = _own_frame(extract_tb(error.__traceback__))
    where = f" ({shown(Path(frame.filename))}:{frame.lineno})" if frame else ""
    return f"{name}{f': {said}' if said else ''}{where}"


def _own_frame(frames: Sequence[FrameSummary]) -> FrameSummary | None:
    """Return the innermost frame of the code that the kernel or engine called last."""
    core = [i for i, f in enumerate(frames) if _CORE in Path(f.filename).parents]
    below = frames[core[-1] + 1 :] if core else frames
    if not below:
        return frames[-1] if frames else None
    home = Path(below[0].filename).parent
    return [f for f in below if home in Path(f.filename).parents][-1]


class AskedTracker:
    """A tracker of the recipe. An error at its start is raised; a later one ends no training.

    Then it is let go, with a warning: ``metrics.jsonl`` holds what it would have been told.
    """

    def __init__(self, tracker: Tracker, name: str = "tracker") -> None:
        self._tracker, self._name = tracker, name
        self._lost = False

    def start(self, run: Run, /) -> None:
        """Start it."""
        self._run, self._printer = run, run.printer
        ask("tracker", self._tracker, self._tracker.start, run)

    def log(self, step: int, metrics: Mapping[str, float], /) -> None:
        """Hand it a row of metrics."""
        self._try(self._tracker.log, step, metrics)

    def rollouts(self, step: int, name: str, rows: Sequence[Mapping[str, Any]], /) -> None:
        """Hand it a table of samples."""
        self._try(self._tracker.rollouts, step, name, rows)

    def close(self, status: Literal["done", "failed"], /) -> None:
        """Close it."""
        self._try(self._tracker.close, status)

    def _try(self, method: Callable[..., None], *args: Any) -> None:
        if self._lost:
            return
        try:
            ask("tracker", self._tracker, method, *args)
        except Interrupted:
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit too: it is not the run's
            self._let_go(error)

    def _let_go(self, error: BaseException) -> None:
        self._lost = True
        self._run.printer = self._printer  # it may have taken over the printing
        self._run.note(
            f"warning: {self._name} is told nothing more, since it raised {described(error)}; "
            f"the run goes on, and its metrics.jsonl has every row"
        )
        with suppress(BaseException):  # of what has failed already
            self._tracker.close("failed")
