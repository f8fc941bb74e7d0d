"""Worker processes that grade, each of which can be killed.

Made by hand because what there is did not pass the tests of this plugin. `concurrent.futures`
cannot end a task. pebble 5.2.3 can, at about the same speed, but its whole pool is broken for good
once a worker dies while none is at work; with "spawn" and "forkserver" a script without a
``__main__`` guard runs again in every worker, and with "fork" the workers hold torch and its locks.

The workers here are plain subprocesses that speak JSON lines: they never import the user's
``__main__``, inherit no locks of a process that runs torch threads, are started from any thread,
and nothing they send is unpickled. A worker asks the kernel to kill it when one verdict takes too
much of its CPU time (``setitimer`` with the default action of SIGPROF), which works inside C code
and after the parent has died, and counts no time in which the machine is busy or all of it is
stopped, as by Ctrl-Z. The parent kills a worker that is late all the same.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import alignkit
from alignkit.errors import AlignkitError
from alignkit.lifecycle.cpus import usable_cpus
from alignkit_rewards.answers import Conventions, Verdict
from alignkit_rewards.process import Process
from alignkit_rewards.worker import OUT_OF_MEMORY

logger = logging.getLogger("alignkit_rewards")

MEMORY_MB = 1024
"""Address space of one worker; a verdict that wants more is given up."""

START_S = 120.0
"""A worker that has not reported ready after this many seconds never will."""

GRACE_S = 10.0
"""The parent kills a worker this much of its CPU time after the worker's own alarm should have: the
alarm stands still while sympy is imported."""

TRIES = 3
"""Workers that a pair may be given to if they are lost: somebody else may have killed them."""

CHUNK = 16
"""Most pairs sent to a worker at once."""

Pair = tuple[Sequence[str], str]
"""The accepted answers, and the answer to judge by them."""

_BOOT = """
import sys, types
for name, folder in zip(("alignkit", "alignkit_rewards"), sys.argv[2:4]):
    package = types.ModuleType(name)  # graders need none of what the __init__ of these imports
    package.__path__ = [folder]
    sys.modules[name] = package
sys.path[:0] = sys.argv[4].split(chr(10))
from alignkit_rewards.worker import main
main(int(sys.argv[1]))
"""


@dataclass(frozen=True, slots=True)
class Task:
    """One pair to judge, and where its verdict goes."""

    pair: Pair
    rules: dict[str, Any]
    timeout: float
    verdict: Future[Verdict] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs under way."""

    tasks: list[Task]

    def result(self) -> list[Verdict]:
        """Return one verdict per pair, in order; AlignkitError if workers cannot be started."""
        return [task.verdict.result() for task in self.tasks]


class Worker(Process):
    """One grading process."""

    def __init__(self) -> None:
        packages = [str(Path(file).parent) for file in (alignkit.__file__, __file__)]
        path = "\n".join(p for p in sys.path if p)
        words = [str(MEMORY_MB), *packages, path]
        super().__init__([sys.executable, "-P", "-c", _BOOT, *words], stderr=subprocess.DEVNULL)
        first = self.line(START_S)
        if first != b'"ready"':
            self.kill()
            said = first.decode("utf-8", "replace") if first else "it said nothing"
            raise AlignkitError(
                f"a grading worker did not start ({said}). Check that `{sys.executable} -c "
                "'import math_verify'` works."
            )

    def send(self, tasks: Sequence[Task]) -> None:
        """Hand over tasks of one batch; BrokenPipeError if the worker is dead."""
        pairs = [task.pair for task in tasks]
        message = {"rules": tasks[0].rules, "limit": tasks[0].timeout, "pairs": pairs}
        self.write(json.dumps(message).encode() + b"\n")

    def settle(self, task: Task, /, *, last: bool) -> bool:
        """Wait for the next verdict and hand it over; False if the worker was lost before."""
        verdict = self.verdict(task)
        if verdict is None and last:
            verdict = given_up("crashed", task)
        if verdict is not None:
            task.verdict.set_result(verdict)
        return verdict is not None

    def verdict(self, task: Task) -> Verdict | None:
        """Wait for the next verdict; a late worker is killed. None if the worker was lost."""
        line = self.line_of_work(task.timeout + GRACE_S)
        verdict = Verdict(*json.loads(line)) if line else None
        if verdict is None or verdict.why == OUT_OF_MEMORY:
            self.kill()
        if verdict is not None:
            return verdict
        late = line is None or self.process.returncode == -signal.SIGPROF
        return given_up("timed out", task) if late else None


def given_up(why: str, task: Task) -> Verdict:
    """Return the verdict on a pair that could not be judged."""
    logger.warning("grading %s: %.80r", why, task.pair[1])
    return Verdict(False, why)


class Serves(Protocol):
    """A process that works off tasks; see :class:`Process`."""

    process: subprocess.Popen[bytes]
    ended: bool

    @property
    def alive(self) -> bool: ...

    def send(self, tasks: Sequence[Any], /) -> None:
        """Hand over tasks; BrokenPipeError if the process is dead."""
        ...

    def settle(self, task: Any, /, *, last: bool) -> bool:
        """Wait for the next task's result and set it; a process that is lost is killed.

        Returns whether it was set. It must be where this is the ``last`` try.
        """
        ...

    def kill(self) -> None: ...

    def kill_group(self) -> None: ...


class Pool:
    """Workers of this process, each served by a thread."""

    def __init__(self, size: int, start: Callable[[], Serves] = Worker) -> None:
        """``start`` starts a worker, when the first task comes and after each one that is lost."""
        self.size = size
        self._start = start
        self._chunks: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        self._workers: list[Serves | None] = [None] * size
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, args=(i,), daemon=True, name=f"grader-{i}")
            for i in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, pairs: Sequence[Pair], rules: Conventions, timeout: float) -> Batch:
        """Start judging pairs, each within ``timeout`` seconds."""
        choices = asdict(rules)
        tasks = [Task(pair, choices, timeout) for pair in pairs]
        step = max(1, min(CHUNK, -(-len(tasks) // (2 * self.size))))
        self.put(tasks, step)
        return Batch(tasks)

    def put(self, tasks: Sequence[Any], step: int = 1) -> None:
        """Start tasks, ``step`` of them together; each has a Future ``verdict``."""
        for start in range(0, len(tasks), step):
            self._chunks.put(list(tasks[start : start + step]))

    def processes(self) -> list[int]:
        """Return the process ids of the live workers."""
        return [w.process.pid for w in self._workers if w is not None and w.alive]

    def close(self) -> None:
        """End all workers; calling it twice is fine."""
        self._closed = True
        for _ in self._threads:
            self._chunks.put(None)
        for worker in self._workers:
            if worker is not None:
                worker.kill_group()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=5)

    def _serve(self, index: int) -> None:
        while (chunk := self._chunks.get()) is not None:
            try:
                self._judge(index, chunk)
            except Exception as error:  # noqa: BLE001 - whoever waits for the result raises it
                if isinstance(error, OSError):
                    error = AlignkitError(f"a grading worker cannot be run: {error}")
                for task in chunk:
                    task.verdict.set_exception(error)
        if (worker := self._workers[index]) is not None:
            worker.kill()

    def _judge(self, index: int, chunk: list[Any]) -> None:
        """Judge the tasks and take each off the chunk; a new worker follows each that cost one.

        A task whose worker was lost is judged again, by ``TRIES`` workers at most.
        """
        lost = 0
        while chunk:
            if self._closed:
                raise AlignkitError("grading was stopped while verdicts were under way")
            worker = self._worker(index)
            try:
                worker.send(chunk)
            except BrokenPipeError:  # it died idle, through no fault of these tasks
                worker.kill()
            while chunk and not worker.ended:
                if not worker.settle(chunk[0], last=lost + 1 >= TRIES):
                    lost += 1
                    break
                del chunk[0]
                lost = 0

    def _worker(self, index: int) -> Serves:
        worker = self._workers[index]
        if worker is None or not worker.alive:
            if worker is not None:
                worker.kill()
            worker = self._workers[index] = self._start()
        return worker


_lock = threading.Lock()
_pool: Pool | None = None


def shared_pool() -> Pool:
    """Return this process's pool, made at the first call and again after a fork or a close."""
    global _pool  # noqa: PLW0603 one pool per process is the point
    with _lock:
        if _pool is None:
            _pool = Pool(_size())
        return _pool


def close_pool() -> None:
    """End this process's workers; the next verdict starts new ones."""
    global _pool
    with _lock:
        pool, _pool = _pool, None
    if pool is not None:
        pool.close()


def _size() -> int:
    """Return the number of workers: the cores this process may use, shared among local ranks."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(8, usable_cpus() // ranks))


def _forget() -> None:
    """Drop, in a forked child, the pool whose threads stayed in the parent."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


atexit.register(close_pool)
os.register_at_fork(after_in_child=_forget)
