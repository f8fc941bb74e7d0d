"""Worker processes that grade, each of which can be killed.

The workers are plain subprocesses that speak JSON lines, not ``multiprocessing`` children: they
never import the user's ``__main__``, inherit no locks of a process that runs torch threads, are
started from any thread, and nothing they send is unpickled. A worker asks the kernel to kill it
when one verdict takes too long (``setitimer`` with the default action of SIGALRM), which works
inside C code and after the parent has died; the parent kills it a little later in any case.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import alignkit
from alignkit.errors import AlignkitError
from alignkit.lifecycle.cpus import usable_cpus
from alignkit_rewards.answers import Conventions, Verdict

logger = logging.getLogger("alignkit_rewards")

MEMORY_MB = 1024
"""Address space of one worker; a verdict that wants more is given up."""

START_S = 120.0
"""A worker that has not reported ready after this many seconds never will."""

GRACE_S = 10.0
"""The parent kills a worker this long after the worker's own alarm should have: the alarm stands
still while sympy is imported."""

CHUNK = 16
"""Most pairs sent to a worker at once."""

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
    """Pairs to judge by one worker, and where their verdicts go."""

    batch: Batch
    places: list[int]


class Batch:
    """Pairs under way; :meth:`result` waits for their verdicts."""

    def __init__(
        self, pairs: Sequence[tuple[Sequence[str], str]], rules: Conventions, timeout: float
    ) -> None:
        self.pairs = pairs
        self.rules = asdict(rules)
        self.timeout = timeout
        self._verdicts: list[Verdict | None] = [None] * len(pairs)
        self._left = len(pairs)
        self._error: AlignkitError | None = None
        self._done = threading.Condition()

    def settle(self, place: int, verdict: Verdict) -> None:
        """Record one verdict."""
        with self._done:
            self._verdicts[place] = verdict
            self._left -= 1
            self._done.notify_all()

    def fail(self, error: AlignkitError) -> None:
        """Give up: no worker can be started."""
        with self._done:
            self._error = error
            self._done.notify_all()

    def result(self) -> list[Verdict]:
        """Return one verdict per pair, in order; AlignkitError if workers cannot be started."""
        with self._done:
            self._done.wait_for(lambda: self._left == 0 or self._error is not None)
        if self._error is not None:
            raise self._error
        return [v for v in self._verdicts if v is not None]


class Worker:
    """One grading process."""

    def __init__(self) -> None:
        packages = [str(Path(file).parent) for file in (alignkit.__file__, __file__)]
        path = "\n".join(p for p in sys.path if p)
        self._process = subprocess.Popen(  # nosec B603 # a list of words, no shell
            [sys.executable, "-P", "-c", _BOOT, str(MEMORY_MB), *packages, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self._buffer = b""
        first = self._line(START_S)
        if first != b'"ready"':
            self.kill()
            said = first.decode("utf-8", "replace") if first else "it said nothing"
            raise AlignkitError(
                f"a grading worker did not start ({said}). Check that `{sys.executable} -c "
                "'import math_verify'` works."
            )

    def send(self, message: object) -> None:
        """Hand over a message; BrokenPipeError if the worker is dead."""
        assert self._process.stdin is not None
        data = memoryview(json.dumps(message).encode() + b"\n")
        while data:
            data = data[self._process.stdin.write(data) or 0 :]

    def verdict(self, timeout: float) -> Verdict:
        """Wait for the next verdict; a dead or late worker is killed and named as the reason."""
        line = self._line(timeout + GRACE_S)
        if line:
            return Verdict(*json.loads(line))
        self.kill()
        late = line is None or self._process.returncode == -signal.SIGALRM
        return Verdict(False, "timed out" if late else "crashed")

    @property
    def alive(self) -> bool:
        """Whether the process is still there."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process now and reap it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _line(self, timeout: float) -> bytes | None:
        """Read one line; ``b""`` if the process ended, None if time ran out."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not _readable(self._process.stdout.fileno(), left):
                return None
            data = self._process.stdout.read(65536)
            if not data:
                self._process.wait()
                return b""
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def _readable(descriptor: int, timeout: float) -> bool:
    poller = select.poll()  # select.select cannot take descriptors above 1023
    poller.register(descriptor, select.POLLIN | select.POLLHUP)
    return bool(poller.poll(timeout * 1000))


class Pool:
    """Grading workers of this process, each served by a thread."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._workers: list[Worker | None] = [None] * size
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, args=(i,), daemon=True, name=f"grader-{i}")
            for i in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self, pairs: Sequence[tuple[Sequence[str], str]], rules: Conventions, timeout: float
    ) -> Batch:
        """Start judging (accepted answers, answer) pairs, each within ``timeout`` seconds."""
        batch = Batch(pairs, rules, timeout)
        step = max(1, min(CHUNK, -(-len(pairs) // (2 * self.size))))
        for start in range(0, len(pairs), step):
            self._tasks.put(Task(batch, list(range(start, min(start + step, len(pairs))))))
        return batch

    def processes(self) -> list[int]:
        """Return the process ids of the live workers."""
        return [w._process.pid for w in self._workers if w is not None and w.alive]

    def close(self) -> None:
        """End all workers; calling it twice is fine."""
        self._closed = True
        for _ in self._threads:
            self._tasks.put(None)
        for worker in self._workers:
            if worker is not None:
                worker._process.kill()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=5)

    def _serve(self, index: int) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                self._work(index, task)
            except AlignkitError as error:
                task.batch.fail(error)
            except OSError as error:
                task.batch.fail(AlignkitError(f"a grading worker cannot be run: {error}"))
        if (worker := self._workers[index]) is not None:
            worker.kill()

    def _work(self, index: int, task: Task) -> None:
        """Judge a task's pairs, starting a new worker after each pair that cost one."""
        left = task.places
        while left and not self._closed:
            worker = self._worker(index)
            batch = task.batch
            pairs = [batch.pairs[i] for i in left]
            try:
                worker.send(
                    {"rules": task.batch.rules, "limit": task.batch.timeout, "pairs": pairs}
                )
            except BrokenPipeError:  # it died idle, through no fault of these pairs
                worker.kill()
                continue
            left = self._collect(worker, batch, left)
        if left:
            raise AlignkitError("grading was stopped while verdicts were under way")

    def _collect(self, worker: Worker, batch: Batch, places: list[int]) -> list[int]:
        """Take verdicts until the worker is done or dead; return the places still open."""
        for done, place in enumerate(places, 1):
            verdict = worker.verdict(batch.timeout)
            if verdict.why in ("timed out", "crashed"):
                logger.warning("grading %s: %.80r", verdict.why, batch.pairs[place][1])
            batch.settle(place, verdict)
            if not worker.alive:
                return places[done:]
        return []

    def _worker(self, index: int) -> Worker:
        worker = self._workers[index]
        if worker is None or not worker.alive:
            if worker is not None:
                worker.kill()
            worker = self._workers[index] = Worker()
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
