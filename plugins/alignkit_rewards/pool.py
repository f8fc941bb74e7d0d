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
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import alignkit
from alignkit.errors import AlignkitError
from alignkit.lifecycle.cpus import usable_cpus
from alignkit_rewards.answers import Conventions, Verdict
from alignkit_rewards.worker import OUT_OF_MEMORY

logger = logging.getLogger("alignkit_rewards")

MEMORY_MB = 1024
"""Address space of one worker; a verdict that wants more is given up."""

START_S = 120.0
"""A worker that has not reported ready after this many seconds never will."""

GRACE_S = 10.0
"""The parent kills a worker this much of its CPU time after the worker's own alarm should have: the
alarm stands still while sympy is imported."""

IDLE_S = 60.0
"""The parent kills a worker that it has waited for so long in which it did not compute."""

TRIES = 3
"""Workers that a pair may be given to if they are lost: somebody else may have killed them."""

SLICE_S = 0.5
"""The parent looks this often at how much of its time a worker has used. What it is stopped itself,
between two looks, counts as one."""

_CPUCLOCK_SCHED = 2
"""Linux makes the number of a process's CPU clock from this and the process's own."""

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


class Worker:
    """One grading process."""

    def __init__(self) -> None:
        packages = [str(Path(file).parent) for file in (alignkit.__file__, __file__)]
        path = "\n".join(p for p in sys.path if p)
        self.process = subprocess.Popen(  # nosec B603 # a list of words, no shell
            [sys.executable, "-P", "-c", _BOOT, str(MEMORY_MB), *packages, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self.ended = False
        self._buffer = b""
        first = self._line(START_S)
        if first != b'"ready"':
            self.kill()
            said = first.decode("utf-8", "replace") if first else "it said nothing"
            raise AlignkitError(
                f"a grading worker did not start ({said}). Check that `{sys.executable} -c "
                "'import math_verify'` works."
            )

    def send(self, tasks: Sequence[Task]) -> None:
        """Hand over tasks of one batch; BrokenPipeError if the worker is dead."""
        assert self.process.stdin is not None
        pairs = [task.pair for task in tasks]
        message = {"rules": tasks[0].rules, "limit": tasks[0].timeout, "pairs": pairs}
        data = memoryview(json.dumps(message).encode() + b"\n")
        while data:
            data = data[self.process.stdin.write(data) or 0 :]

    def verdict(self, task: Task) -> Verdict | None:
        """Wait for the next verdict; a late worker is killed. None if the worker was lost."""
        line = self._line(task.timeout + GRACE_S)
        verdict = Verdict(*json.loads(line)) if line else None
        if verdict is None or verdict.why == OUT_OF_MEMORY:
            self.kill()
        if verdict is not None:
            return verdict
        late = line is None or self.process.returncode == -signal.SIGPROF
        return given_up("timed out", task) if late else None

    @property
    def alive(self) -> bool:
        """Whether the process is still there."""
        return self.process.poll() is None

    def kill(self) -> None:
        """End the process now and reap it."""
        self.ended = True
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def _line(self, limit: float) -> bytes | None:
        """Read one line; ``b""`` if the process ended, None if its time ran out.

        That is after ``limit`` seconds of its CPU time, or ``IDLE_S`` in which it could compute and
        did not.
        """
        assert self.process.stdout is not None
        began, waited = self._computed(), 0.0
        while b"\n" not in self._buffer:
            if not _readable(self.process.stdout.fileno(), SLICE_S):
                used = self._computed() - began
                waited += 0.0 if _stopped(self.process.pid) else SLICE_S
                if used > limit or waited - used > IDLE_S:
                    return None
                continue
            data = self.process.stdout.read(65536)
            if not data:
                self.process.wait()
                return b""
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _computed(self) -> float:
        """Return the process's CPU seconds; 0 where they are not told."""
        try:
            return time.clock_gettime(~self.process.pid << 3 | _CPUCLOCK_SCHED)
        except OSError:  # it has just ended: the next read says so
            return 0.0


def given_up(why: str, task: Task) -> Verdict:
    """Return the verdict on a pair that could not be judged."""
    logger.warning("grading %s: %.80r", why, task.pair[1])
    return Verdict(False, why)


def _stopped(process: int) -> bool:
    """Whether a process is stopped, as by SIGSTOP."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] in ("T", "t")


def _readable(descriptor: int, timeout: float) -> bool:
    poller = select.poll()  # select.select cannot take descriptors above 1023
    poller.register(descriptor, select.POLLIN | select.POLLHUP)
    return bool(poller.poll(timeout * 1000))


class Pool:
    """Grading workers of this process, each served by a thread."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._chunks: queue.SimpleQueue[list[Task] | None] = queue.SimpleQueue()
        self._workers: list[Worker | None] = [None] * size
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
        for start in range(0, len(tasks), step):
            self._chunks.put(tasks[start : start + step])
        return Batch(tasks)

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
                worker.process.kill()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=5)

    def _serve(self, index: int) -> None:
        while (chunk := self._chunks.get()) is not None:
            try:
                self._judge(index, chunk)
            except (AlignkitError, OSError) as error:
                if isinstance(error, OSError):
                    error = AlignkitError(f"a grading worker cannot be run: {error}")
                for task in chunk:
                    task.verdict.set_exception(error)
        if (worker := self._workers[index]) is not None:
            worker.kill()

    def _judge(self, index: int, chunk: list[Task]) -> None:
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
                verdict = worker.verdict(chunk[0])
                if verdict is None and (lost := lost + 1) < TRIES:
                    break
                found = verdict or given_up("crashed", chunk[0])
                chunk.pop(0).verdict.set_result(found)
                lost = 0

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
