"""Runs a sweep: each run has a process and a directory of its own; none is made twice."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import tomli_w

from alignkit.errors import AlignkitError, RecipeError, shown
from alignkit.lifecycle.cpus import usable_cpus
from alignkit.lifecycle.files import write_whole
from alignkit.lifecycle.manifest import machine
from alignkit.lifecycle.resume_point import changes
from alignkit.lifecycle.run_dir import RECIPE, begun
from alignkit.lifecycle.signals import Interrupted, Signals
from alignkit.recipe import load
from alignkit.run_data.groups import Group, final
from alignkit.run_data.runs import SWEEP, read, sweep_notes
from alignkit_sweep.child import FINISHED, SPENT, Job, Watched
from alignkit_sweep.launchers import Command, Here, Launcher
from alignkit_sweep.plans import Plans
from alignkit_sweep.variants import Variant

POLL = 0.2
"""Seconds between looks at the running children."""
HEARTBEAT = 60.0
"""Seconds between lines about their progress."""


@dataclass
class Runner:
    """Makes the runs of a sweep below ``out``."""

    plans: Plans
    jobs: int = 1
    """Runs at a time."""
    options: Sequence[str] = ()
    """More options for every ``alignkit run``."""
    say: Callable[[str], None] = print
    command: Sequence[str] = (sys.executable, "-m", "alignkit")
    launcher: Launcher | None = None
    """What starts the runs; None = child processes of this one."""
    failures: list[str] = field(default_factory=list)
    """What went wrong, one text per run."""

    @property
    def out(self) -> Path:
        """The sweep's directory."""
        return self.plans.out

    def run(self, only: Sequence[str] = ()) -> None:
        """Make the missing runs; afterwards ``failures`` holds what could not be made.

        Raises AlignkitError, before anything starts, where a finished run of the directory was
        made with another plan.
        """
        if lacking := self.plans.sweep.lacking:
            raise RecipeError({str(p): p for p in lacking}.values())
        waves = list(self.plans.waves(self.plans.chosen(only)))
        for variant in waves[0]:
            for job in self.plans.jobs(variant):
                job.check()
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AlignkitError(f"cannot make {shown(self.out)}: {error.strerror}") from error
        with self._lock() as lock, self._interruptible():
            self._note_order()
            made: list[Job] = []
            for wave in waves:
                jobs = [job for variant in wave for job in self._prepared(variant)]
                self._make([job for job in jobs if job.status() not in FINISHED], lock.fileno())
                made += jobs
            self._check_again(made)

    def _check_again(self, jobs: Iterable[Job]) -> None:
        """Record the runs that used a plugin file which was edited while the sweep ran."""
        for job in jobs:
            try:
                job.check()
            except AlignkitError as error:
                self.failures.append(f"{job.name}: {error}")

    def _prepared(self, variant: Variant) -> list[Job]:
        """Return a variant's runs, or record why there can be none."""
        try:
            jobs = self.plans.jobs(variant)
            for job in jobs:
                job.check()
        except AlignkitError as error:
            self.failures.append(f"{variant.name}: {error}")
            return []
        if variant.best_of:
            names = " <- ".join(v.name for v in reversed(self.plans.chain(variant)))
            self.say(f"{variant.name} takes over the settings of {names}")
        return jobs

    def _make(self, jobs: Sequence[Job], keep_open: int) -> None:
        environment = self._environment()
        launcher = self.launcher or Here(self.jobs, environment, keep_open)
        waiting, running, spoken = list(jobs), list[Watched](), time.monotonic()
        try:
            while waiting or running:
                if free := launcher.room - len(running):
                    due, waiting = waiting[:free], waiting[free:]
                    running += self._started(due, launcher, environment, len(waiting))
                time.sleep(POLL)
                for child in [c for c in running if c.ended()]:
                    running.remove(child)
                    self._report(child)
                if time.monotonic() - spoken > HEARTBEAT:
                    spoken = time.monotonic()
                    for child in running:
                        self.say(f"{child.job.name}: {self._progress(child.job)}")
        finally:
            for child in running:
                child.tell()
            for child in running:
                child.stop()

    def _environment(self) -> dict[str, str]:
        """Return the runs' environment; those side by side on this machine share its cores."""
        environment = dict(os.environ)
        if self.jobs > 1 and self.launcher is None:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, usable_cpus() // self.jobs)))
        return environment

    def _started(
        self, jobs: Sequence[Job], launcher: Launcher, environment: Mapping[str, str], left: int
    ) -> list[Watched]:
        """Start these runs; ``left`` others wait."""
        if not jobs:
            return []
        commands = [self._command(job, environment) for job in jobs]
        for n, job in enumerate(jobs, 1):
            self.say(f"{job.name}: started, {left + len(jobs) - n} to follow")
        table = self.plans.sweep.table
        spent = [job.spent() for job in jobs]
        started = zip(jobs, launcher.start(commands), spent, strict=True)
        return [Watched(job, table, process, hours) for job, process, hours in started]

    def _command(self, job: Job, environment: Mapping[str, str]) -> Command:
        """Return how a run is made; what is there of it is moved away if it cannot go on."""
        begin, go_on = self._line(job), ["resume", str(job.folder)]
        if not self._resumable(job, environment):
            self._write_anew(job)
        words = [[*self.command, *line, *self.options] for line in (begin, go_on)]
        return Command(words[0], words[1], job.folder, job.beside(".log"))

    def _resumable(self, job: Job, environment: Mapping[str, str]) -> bool:
        """Whether a run was begun by this plan; one that cannot go on exactly begins anew."""
        if not begun(job.folder) or job.changed():
            return False
        try:
            node = load(job.folder / RECIPE, self.plans.sweep.registry)
            changed = changes(job.folder, node, machine(environment))
        except AlignkitError:
            changed = ["the recipe"]
        if changed:
            self.say(f"{job.name}: cannot go on as it began: {'; '.join(changed)}")
        return not changed

    def _write_anew(self, job: Job) -> None:
        """Write the run's recipe, after moving away what is there of it."""
        self._put_aside(job)
        job.beside(SPENT).unlink(missing_ok=True)
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        origin = shown(self.plans.sweep.path.absolute())
        write_whole(job.beside(".toml"), f"# {job.name} of {origin}\n{tomli_w.dumps(job.plan)}")

    def _line(self, job: Job) -> list[str]:
        """Return the words that begin a run."""
        # What the command line names may be written anywhere; what a recipe names may not.
        named = [o for o in self.plans.sweep.overrides if o.startswith("trackers")]
        given = [word for override in named for word in ("-s", override)]
        return ["run", str(job.beside(".toml")), "--out", str(job.folder), *given]

    def _put_aside(self, job: Job) -> None:
        """Move a half-finished run out of the way; it is kept, not reported."""
        if not job.folder.exists():
            return
        aside = self.out / ".aside"
        aside.mkdir(exist_ok=True)
        stem = job.name.replace("/", "-")
        free = next(p for n in range(1, 10**6) if not (p := aside / f"{stem}-{n}").exists())
        job.folder.rename(free)
        self.say(f"{job.name}: was not finished; begins anew, the old one is in {shown(free)}")

    def _report(self, child: Watched) -> None:
        job, status = child.job, child.job.status()
        reason = read(job.folder).reason
        told = f"{status} ({reason})" if reason else status
        self.say(f"{job.name}: {told}, {self._progress(job)}")
        if status not in FINISHED:
            log = job.beside(".log")
            lines = log.read_text(errors="replace").splitlines()[-8:] if log.is_file() else []
            tail = "\n".join(f"    {line}" for line in lines)
            code = child.process.poll()
            self.failures.append(f"{job.name}: ended with status {code}, {status}:\n{tail}")

    def _progress(self, job: Job) -> str:
        """Return the step a run has reached, and the metric that counts."""
        run, metric = read(job.folder), self.plans.sweep.table.metric
        last = final(Group("", [run]), metric)
        step = f"step {run.rows[-1]['step']}" if run.rows else "no step yet"
        return f"{step}, {metric} {last.value:.3f}" if last else step

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Pass signals on to the children, which save their state; then end the sweep."""
        with Signals().installed():
            try:
                yield
            except Interrupted as interrupted:
                interrupted.remedy = "go on with the same command"
                raise

    @contextmanager
    def _lock(self) -> Iterator[IO[str]]:
        """Hold the directory; the children hold it too, so runs a killed sweep left end first."""
        try:
            lock = (self.out / ".lock").open("w")
        except OSError as error:
            raise AlignkitError(f"cannot write in {shown(self.out)}: {error.strerror}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.say(f"waiting: another sweep, or a run it left, is at work in {self.out}")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock

    def _note_order(self) -> None:
        """Record the title and the variants' order for the report; other sweeps' come after."""
        old = sweep_notes(self.out).get("variants", [])
        names = dict.fromkeys([*(v.name for v in self.plans.sweep.variants), *old])
        notes = {"title": self.plans.sweep.title, "variants": list(names)}
        (self.out / SWEEP).write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")


def failed(failures: Iterable[str]) -> str:
    """Return the final message of a sweep about runs that could not be made."""
    return "\n".join(["some runs could not be made:", *failures])
