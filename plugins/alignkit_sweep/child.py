"""One run of a sweep: its directory, and the watch on it while it runs."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli
import tomli_w

from alignkit.errors import AlignkitError, shown
from alignkit.lifecycle.files import write_whole
from alignkit.lifecycle.fingerprint import NAME as FINGERPRINT
from alignkit.lifecycle.fingerprint import source_sum
from alignkit.lifecycle.run_dir import begun
from alignkit.plugin_files import MODULES
from alignkit.run_data.groups import flatten
from alignkit.run_data.metrics import FollowedRows
from alignkit.run_data.runs import STOPPED, is_run, read
from alignkit_sweep.launchers import Process
from alignkit_sweep.stop import Divergence
from alignkit_sweep.tables import SweepTable

FINISHED = ("done", "diverged", "out of time")
"""States of a run that is not started again."""
SPENT = ".seconds"
"""Suffix of the file beside a run directory with the seconds its run has taken, restarts together;
only with ``max_hours``."""
NOTED = 10.0
"""Seconds between two such notes: at most so many are lost if the sweep is killed."""
GRACE = 300.0
"""Seconds a child has to save its state and end after being asked to."""


@dataclass(frozen=True)
class Job:
    """One run to be made, or made."""

    variant: str
    plan: Mapping[str, Any]
    folder: Path
    """The run directory; plan and output of the child are beside it."""

    @property
    def name(self) -> str:
        return f"{self.variant}/{self.folder.name}"

    def beside(self, suffix: str) -> Path:
        """Return the file of that suffix beside the run directory."""
        return self.folder.with_name(self.folder.name + suffix)

    def status(self) -> str:
        """Return the state of the run, ``missing`` if it was never started."""
        return read(self.folder).status if is_run(self.folder) else "missing"

    def changed(self) -> dict[str, tuple[Any, Any]]:
        """Return what changed of the plan and of its plugin files, by key or file: before, now."""
        file = self.beside(".toml")
        if not file.is_file():
            return {}
        old = flatten(tomli.loads(file.read_text(encoding="utf-8"))) | self._code_then()
        new = flatten(tomli.loads(tomli_w.dumps(self.plan)))
        new |= {file: source_sum(Path(file)) for file in self._code_then()}
        return {k: (old.get(k), new.get(k)) for k in {**old, **new} if old.get(k) != new.get(k)}

    def _code_then(self) -> dict[str, str]:
        """Return the checksums that plugin files of the plan had when the run used them."""
        try:
            found = json.loads((self.folder / FINGERPRINT).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # the run did not get that far
            return {}
        code = found.get("code", {})
        modules = {file: MODULES + Path(file).stem for file in self.plan.get("plugins", ())}
        return {file: code[name] for file, name in modules.items() if name in code}

    def spent(self) -> float:
        """Return the hours that the run has taken so far, 0 where it is to begin.

        Its own clock goes back to its last checkpoint when it goes on after a kill; what the sweep
        has noted does not.
        """
        if not begun(self.folder):
            return 0.0
        run = read(self.folder)
        return max([run.seconds, self._noted(), *run.clock.values()]) / 3600

    def _noted(self) -> float:
        """Return the seconds that the sweep has noted, 0 for none."""
        with suppress(OSError, ValueError):
            return float(self.beside(SPENT).read_text(encoding="utf-8"))
        return 0.0

    def note(self, hours: float) -> None:
        """Note the hours that the run has taken so far."""
        write_whole(self.beside(SPENT), f"{3600 * hours:.3f}\n")

    def check(self) -> None:
        """Raise AlignkitError if a finished run was made with another plan."""
        changed = self.changed() if self.status() in FINISHED else {}
        if changed:
            shift = list(changed.items())[:4]
            what = ", ".join(f"{key} was {was!r}, is {now!r}" for key, (was, now) in shift)
            raise AlignkitError(
                f"{shown(self.folder)} was made with another plan ({what}); "
                f"choose another --out, or move that directory away"
            )


class Watched:
    """A run that was started, and the watch on it."""

    def __init__(self, job: Job, table: SweepTable, process: Process, spent: float = 0.0) -> None:
        """Watch ``process``; its run has taken ``spent`` hours before."""
        self.job, self._table, self.process, self._spent = job, table, process, spent
        self._began: float | None = None
        self._noted = -NOTED
        self._hours()  # its clock starts here, unless it has to wait in a queue
        self._rows = FollowedRows(job.folder / "metrics.jsonl")
        if table.stop is not None:
            self._seen = Divergence(table.stop)
        self._told = False

    def tell(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask the process to save its state and end, once: a second time would end it at once."""
        if not self._told:
            self._told = True
            self.process.signal(number)

    def ended(self) -> bool:
        """Whether the process has ended; first stops it where the sweep requires it."""
        if self.process.poll() is not None:
            self._note(every=0.0)
            return True
        if self._table.max_hours and self._hours() > self._table.max_hours:
            self._give_up("out of time", f"stopped after max_hours = {self._table.max_hours:g}")
        elif reason := self._diverged():
            self._give_up("diverged", reason)
        else:
            self._note(every=NOTED)
        return self.process.poll() is not None

    def _note(self, *, every: float) -> None:
        """Note the time taken, where it counts and ``every`` so many seconds have passed."""
        if self._table.max_hours and self._began is not None:
            ran = time.monotonic() - self._began
            if ran - self._noted >= every:
                self._noted = ran
                self.job.note(self._hours())

    def _hours(self) -> float:
        """Return how long it has run, restarts together; waiting in a queue does not count."""
        if self._began is None and self.process.began():
            self._began = time.monotonic()
        now = 0.0 if self._began is None else (time.monotonic() - self._began) / 3600
        return self._spent + now

    def _diverged(self) -> str:
        if self._table.stop is None:
            return ""
        for row in self._rows.more():
            if row is None:  # the file is another, or was cut back
                self._seen = Divergence(self._table.stop)
            else:
                self._seen.add(row)
        return self._seen.reason()

    def _give_up(self, status: str, reason: str) -> None:
        """End the run for good; one that is out of time leaves its model, as at its end."""
        self.stop(signal.SIGUSR1 if status == "out of time" else signal.SIGTERM)
        if read(self.job.folder).status != "done":  # it may have ended by itself meanwhile
            text = json.dumps({"status": status, "reason": reason}) + "\n"
            self.job.folder.mkdir(parents=True, exist_ok=True)  # it may not have got that far
            (self.job.folder / STOPPED).write_text(text)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the process, by force if it does not within GRACE."""
        self.tell(number)
        if not self.process.wait(GRACE):
            self.process.kill()
        self._note(every=0.0)
