"""A reward function of the user's in processes of its own, while responses are being generated."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from alignkit.errors import AlignkitError, TransientError, shown
from alignkit.protocols import Example, Response, Reward
from alignkit_rewards.formats import final_answer
from alignkit_rewards.pool import GRACE_S, Pool
from alignkit_rewards.process import Process

logger = logging.getLogger("alignkit_rewards")

START_S = 600.0
"""Seconds within which the user's file must be imported; it may load a model."""

_BOOT = """
import sys
sys.path[:0] = sys.argv[5].split(chr(10))
from alignkit_rewards.script_worker import main
main(sys.argv[1], sys.argv[2], sys.argv[3] == "batched", int(sys.argv[4]))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Whose function is called, and how long a call may take."""

    file: Path
    function: str
    batched: bool
    timeout: float | None
    """Seconds; None = as long as it takes."""
    late: float
    """Reward of the responses of a call that takes longer."""

    @property
    def where(self) -> str:
        """What messages call the function."""
        return f"{self.file}:{self.function}"


@dataclass(frozen=True, slots=True)
class Call:
    """Responses that the function is called with, and where their rewards go."""

    responses: Sequence[str]
    examples: Sequence[Example]
    verdict: Future[list[Reward]] = field(default_factory=Future)

    def line(self, limit: float | None) -> bytes:
        """Return the call as the process reads it, without columns that JSON cannot hold."""
        texts = [
            (str(r), asdict(r.completion) if isinstance(r, Response) else None)
            for r in self.responses
        ]
        rows = [
            {**{f.name: getattr(e, f.name) for f in fields(e)}, "extra": _kept(e.extra)}
            for e in self.examples
        ]
        message = {"responses": texts, "examples": rows, "limit": limit}
        return json.dumps(message).encode() + b"\n"

    def again(self) -> Call:
        """Return the same call, not made yet."""
        return Call(self.responses, self.examples)


def _kept(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in columns.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


class ScriptWorker(Process):
    """One process that calls the function."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._notes = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        notes, path = self._notes.fileno(), "\n".join(p for p in sys.path if p)
        how = "batched" if script.batched else "one by one"
        words = [str(script.file.absolute()), script.function, how, str(notes), path]
        super().__init__([sys.executable, "-P", "-c", _BOOT, *words], pass_fds=(notes,))
        first = self.line(START_S)
        told = json.loads(first) if first else {"error": self._why(late=first is None)}
        if "error" in told:
            self.kill()
            raise AlignkitError(told["error"])

    def send(self, calls: Sequence[Call]) -> None:
        """Hand over calls; BrokenPipeError if the process is dead."""
        for call in calls:
            self.write(call.line(self._script.timeout))

    def settle(self, call: Call, /, *, last: bool) -> bool:
        """Wait for a call's rewards, or for what it raised; a dead or late process is killed.

        A call is never tried again: it may have done something already.
        """
        limit = self._script.timeout
        line = self.line(None if limit is None else limit + GRACE_S)
        if line:
            _settle(call, json.loads(line))
            return True
        late = line is None or self._said().startswith("Timeout")
        why = self._why(late=late)
        self.kill()
        if late:
            logger.warning("%s", why)
            given = Reward(self._script.late, {"timed_out": 1.0})
            call.verdict.set_result([given] * len(call.responses))
        else:
            call.verdict.set_exception(AlignkitError(why))
        return True

    def _why(self, *, late: bool) -> str:
        """Return in words why the process is gone, with the line where it was."""
        frames = re.findall(r'File "(.+)", line (\d+)', self._said())
        own = [f for f in frames if Path(f[0]).is_relative_to(self._script.file.absolute().parent)]
        at = f" ({shown(Path(own[0][0]))}, line {own[0][1]})" if own else ""
        if late:
            return f"{self._script.where} took longer than {self._script.timeout:g} s{at}"
        code = self.process.wait()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        return f"{self._script.where} ended its process {how}{at}"

    def _said(self) -> str:
        """Return the traceback that the process left, the innermost call first."""
        return os.pread(self._notes.fileno(), 2**20, 0).decode("utf-8", "replace")

    def kill(self) -> None:
        """End the process now, with those that it started, and reap it."""
        super().kill()
        self._notes.close()


def _settle(call: Call, told: dict[str, Any]) -> None:
    if "rewards" in told:
        call.verdict.set_result([Reward(total, parts) for total, parts in told["rewards"]])
    elif "transient" in told:
        message, retries, wait = told["transient"]
        call.verdict.set_exception(TransientError(message, retries=retries, wait=wait))
    else:
        call.verdict.set_exception(AlignkitError(told["error"]))


class Pending:
    """Calls that are on their way."""

    def __init__(self, pool: Pool, calls: Sequence[Call]) -> None:
        self._pool, self._calls = pool, list(calls)
        self._told = False

    def result(self) -> list[Reward]:
        """Wait; return one reward per response. Calls that another try may help are made again."""
        if self._told:
            again = {i: c.again() for i, c in enumerate(self._calls) if _transient(c)}
            for i, call in again.items():
                self._calls[i] = call
            self._pool.put(list(again.values()))
        self._told = True
        return [reward for call in self._calls for reward in call.verdict.result()]


def _transient(call: Call) -> bool:
    return isinstance(call.verdict.exception(), TransientError)


class ScriptPool:
    """A reward: the user's function, called in ``workers`` processes."""

    read = staticmethod(final_answer)

    def __init__(self, script: Script, workers: int) -> None:
        """Start the first process; AlignkitError if it cannot import the file."""
        self._script = script
        self._size = workers
        self._lock = threading.Lock()
        self._first: ScriptWorker | None = ScriptWorker(script)
        self._pool: Pool | None = None

    def __call__(self, responses: Sequence[str], examples: Sequence[Example]) -> list[Reward]:
        """Return the function's rewards; AlignkitError if it raises or returns something else."""
        return self.submit(responses, examples).result()

    def submit(self, responses: Sequence[str], examples: Sequence[Example]) -> Pending:
        """Start the calls and return at once: one for each response, or one for all if batched."""
        pairs = list(zip(responses, examples, strict=True))
        if self._script.batched:
            calls = [Call(list(responses), list(examples))]
        else:
            calls = [Call([response], [example]) for response, example in pairs]
        pool = self._running()
        pool.put(calls)
        return Pending(pool, calls)

    def close(self) -> None:
        """End all processes; calling it twice is fine. A later call starts new ones."""
        with self._lock:
            pool, self._pool = self._pool, None
            first, self._first = self._first, None
        if first is not None:
            first.kill()
        if pool is not None:
            pool.close()

    def processes(self) -> list[int]:
        """Return the process ids of the live workers."""
        first = [self._first.process.pid] if self._first else []
        return first + (self._pool.processes() if self._pool else [])

    def _running(self) -> Pool:
        with self._lock:
            if self._pool is None:
                self._pool = Pool(self._size, self._worker)
            return self._pool

    def _worker(self) -> ScriptWorker:
        with self._lock:
            first, self._first = self._first, None
        return first if first is not None and first.alive else ScriptWorker(self._script)
