"""Run a validated recipe, or resume one: run directory, metrics, result."""

from __future__ import annotations

import json
import math
import os
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast

import tomli_w

from alignkit.errors import AlignkitError, RecipeError, RunFailed, in_shell, shown
from alignkit.lifecycle import determinism, fingerprint, ranks
from alignkit.lifecycle.files import UNWRITABLE, write_json, write_whole
from alignkit.lifecycle.lock import locked
from alignkit.lifecycle.manifest import Manifest
from alignkit.lifecycle.place import Place
from alignkit.lifecycle.run_dir import METRICS, RECIPE, folder_for
from alignkit.lifecycle.signals import Interrupted, Signals
from alignkit.protocols import Algorithm, Tracker
from alignkit.recipe import Node, missing
from alignkit.security.code import announcement
from alignkit.security.outputs import refuse_outside
from alignkit.security.recorded import lost, without_secrets
from alignkit.security.secrets import redact_text
from alignkit.security.text import printable, say

if TYPE_CHECKING:
    from alignkit.lifecycle.resume_point import Start

Status = Literal["done", "failed"]


class Run:
    """One run directory, and the channel through which an algorithm reports to it.

    It is an :class:`alignkit.protocols.Run`, where its attributes are documented.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any], start: Start | None = None) -> None:
        """Open the directory; ``start`` tells where a resumed run continues."""
        self.dir, self.plan = folder, plan
        self.printer: Callable[[str], None] = say
        self.total_steps: int | None = None
        self.resumed = start is not None
        self.first_step = start.first_step if start else 0
        self.checkpoint = start.checkpoint if start else None
        self.profiled, self.computed = False, dict[str, str]()
        self.signals = Signals()
        self.notes: list[str] = []
        """What the manifest should tell of the run besides its numbers."""
        self._trackers: list[Tracker] = []
        self._started = time.monotonic() - (start.mark.seconds if start else 0.0)
        self._metrics: IO[str] = (folder / METRICS).open("a+", encoding="utf-8")
        self._place = Place(folder)
        self._lost = ""

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.dir.name

    def elapsed(self) -> float:
        """Return the seconds the run has taken, including those before it was resumed."""
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """Print a line for the user."""
        self.printer(printable(redact_text(text)))

    def note(self, text: str) -> None:
        """Print a line and also keep it in the manifest."""
        self.notes.append(redact_text(text))
        self.say(text)

    def attach(self, trackers: Iterable[Tracker]) -> None:
        """Start trackers, which then receive every row; the run closes them when it ends."""
        for tracker in trackers:
            tracker.start(self)
            self._trackers.append(tracker)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one row to ``metrics.jsonl`` and pass it to the trackers; call once per step.

        Numbers that are not finite are written as null, which every JSON reader accepts.
        """
        row = {"time": round(self.elapsed(), 3)} | {k: float(v) for k, v in metrics.items()}
        finite = {k: v if math.isfinite(v) else None for k, v in row.items()}
        self.stay()
        with self.signals.deferred():
            self._metrics.write(json.dumps({"step": step} | finite) + "\n")
            self._metrics.flush()
            for tracker in self._trackers:
                tracker.log(step, row)

    def stay(self) -> None:
        """Raise AlignkitError if the directory was deleted or moved during the run.

        ``dir`` is then set to where the run's state can be saved: where it was moved to, or the old
        path, created anew.
        """
        if not self._place.is_kept():
            try:
                self._recover()
            except OSError as error:
                said = f"{shown(self.dir)} is gone, and cannot be made again: {error.strerror}"
                raise AlignkitError(said) from error
        if self._lost:
            raise AlignkitError(self._lost)

    def _recover(self) -> None:
        """Find the directory again, or create it anew; keep what happened to it."""
        from alignkit.lifecycle.recovery import recovered

        self._metrics.seek(0)
        folder, self._lost = recovered(self._place, self._metrics.read())
        self._place.close()
        if folder == self.dir:
            self._metrics.close()
            self._metrics = (folder / METRICS).open("a+", encoding="utf-8")
        self.dir, self._place = folder, Place(folder)

    def logged_bytes(self) -> int:
        """Return the length of ``metrics.jsonl``."""
        return os.fstat(self._metrics.fileno()).st_size

    def sync_metrics(self) -> None:
        """Flush ``metrics.jsonl`` to disk, before a checkpoint relies on it."""
        os.fsync(self._metrics.fileno())

    def rows(self, step: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write samples to ``{name}/step_NNNNNN.jsonl`` and pass them to the trackers.

        ``name`` is ``rollouts``, ``eval`` or ``eval/SET``.
        """
        folder = self.dir / name
        if not {"..", ""}.isdisjoint(name.split("/")):
            raise AlignkitError(f"rows {name!r:.60} would be written outside {shown(self.dir)}")
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        (folder / f"step_{step:06d}.jsonl").write_text(lines, encoding="utf-8")
        for tracker in self._trackers:
            tracker.rollouts(step, name, rows)

    def close(self, status: Status) -> None:
        """Close the metrics file and every tracker, even if one of them raises."""
        self._metrics.close()
        self._place.close()
        with ExitStack() as stack:
            for tracker in reversed(self._trackers):
                stack.callback(tracker.close, status)


def execute(
    node: Node,
    recipe: Path,
    out: Path | None,
    command: Sequence[str],
    *,
    profiled: bool = False,
    deterministic: bool = False,
) -> Run:
    """Build and run a validated recipe; return the finished run.

    Nothing is written before everything is built; a signal while the directory is made waits until
    the run in it can be resumed. Raises RecipeError or AlignkitError when the
    recipe cannot be built here, RunFailed when the run itself fails, Interrupted when a signal or
    a time limit ended it.
    """
    folder = folder_for(out, recipe)
    if deterministic or determinism.demanded():
        determinism.demand()
    refuse_outside(node, folder)
    algorithm, signals = built(node), Signals()
    plan = without_secrets(node)
    manifest = Manifest.new(folder, node, recipe, command)
    marks = fingerprint.fingerprint(node, manifest.facts)
    with signals.installed(held=True), locked(folder):
        write_json(folder / fingerprint.NAME, marks)
        manifest.write()
        write_whole(folder / RECIPE, tomli_w.dumps(recorded(plan, node, folder)))
        run = Run(folder, plan)
        run.profiled, run.signals = profiled, signals
        if left_out := lost(plan):
            keys = ", ".join(".".join(key) for key in left_out)
            run.note(f"{RECIPE} does not keep the secrets of {keys}; resuming asks for them again")
        return carry_out(algorithm, run, manifest)


def recorded(plan: Mapping[str, Any], node: Node, folder: Path) -> dict[str, Any]:
    """Return a plan as stored in a run directory: with copies of the plugin files."""
    if not node.files:
        return dict(plan)
    from alignkit.plugin_files import copied

    return {"plugins": copied(node.files, folder)} | dict(plan)


def built(node: Node) -> Algorithm:
    """Build the algorithm; RecipeError lists all that this machine lacks for it."""
    if lacking := missing(node):
        raise RecipeError(lacking)
    if (foreign := announcement(node)) and not ranks.follows():
        say(foreign)
    if "OMP_WAIT_POLICY" not in os.environ:  # threads that spin for long starve busy machines,
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # but 0.1 ms is less than waking takes
    try:
        algorithm = cast("Algorithm", node.build())
    except SystemExit as error:
        raise AlignkitError(f"a component ended the process: exit({error.code!r})") from error
    ranks.refuse_unless_divided(algorithm, repr(node.use))
    return algorithm


def carry_out(algorithm: Algorithm, run: Run, manifest: Manifest) -> Run:
    """Run to the end, or to an error or a signal; the manifest records which."""
    result: Mapping[str, float] = {}
    status, manifest.facts["computed"] = "failed", run.computed
    try:
        try:
            run.say(f"run directory: {shown(run.dir)}")
            with run.signals.installed():
                result = dict(algorithm.run(run))
            run.stay()
            status = "done"
        except Interrupted as interrupted:
            if not any((run.dir / "checkpoints").glob("step_*")):
                interrupted.without_checkpoint()
            status = interrupted.state
            interrupted.remedy = f"go on with: alignkit resume {in_shell(run.dir)}"
            raise
        finally:
            # Where the disk failed, what it was to hold of the end cannot be written either.
            with suppress(OSError) if status == "failed" else nullcontext():
                run.close("done" if status == "done" else "failed")
    except KeyboardInterrupt:
        status = "interrupted" if status == "failed" else status
        raise
    except BaseException as error:  # whatever a component raises, SystemExit too
        status = "failed"
        raise _failure(run, error) from error
    finally:
        with suppress(OSError) if status == "failed" else nullcontext():
            manifest.path = run.dir / manifest.path.name  # it may have been moved
            manifest.close(status, run.elapsed(), result, run.notes)
    return run


def _failure(run: Run, error: BaseException) -> RunFailed:
    """Return the message for a run that failed; the traceback of an unexpected error is saved."""
    said, folder = str(error), shown(run.dir)
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        from alignkit.lifecycle.full import no_room, remedy

        said, then = no_room(run.dir, error), f"{remedy(error)}, then"
        return RunFailed(f"{said}\n{then}: alignkit resume {in_shell(run.dir)}")
    if not isinstance(error, AlignkitError):
        said = redact_text(traceback.format_exc())
        with suppress(OSError):
            (run.dir / "error.txt").write_text(said, encoding="utf-8")
    return RunFailed(f"{said}\nthe run failed; its directory is {folder}")
