"""Heartbeats of the ranks, and the cause of a failure, so that no rank waits for one that is gone.

Each rank increments a number in the store that all of them share, and watches the numbers of the
others. A rank that fails writes why. A rank whose number does not change for ``SILENT`` seconds has
been killed or stopped, or its machine is gone.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from alignkit.errors import AlignkitError, Said

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

BEAT = 0.5
"""Seconds between two heartbeats."""
SILENT = 15.0
"""Seconds without a heartbeat after which a rank counts as gone."""
EARLY, GRACE = 5.0, 20.0
"""Seconds that a rank has, after another failed, to notice, before all have met and from then on;
then its process is ended."""


class OtherRankFailed(Said, AlignkitError):
    """What ended the run on this rank; the rank that it happened on prints it."""

    def __init__(self, why: str, status: int = 1) -> None:
        super().__init__(why)
        self.exit_status = status


class Pulse:
    """This rank's heartbeat, and what it knows of the other ranks."""

    def __init__(self, store: Store, rank: int, size: int) -> None:
        """``store`` is used by the heartbeat's thread alone."""
        self._store, self._rank, self._size = store, rank, size
        self._beats = 0
        self._seen = {r: (0, math.inf) for r in range(size) if r != rank}
        """The last number of each rank, and when it was new: not yet for one that is to come."""
        self._failed, self._status = "", 1
        self._since = 0.0
        self._noticed = False
        self.grace = EARLY
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._try(self._beat)  # before any rank can tell that this one is here
        self._answered = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def check(self) -> None:
        """Raise OtherRankFailed if one has."""
        if self._failed:
            self._noticed = True
            raise OtherRankFailed(self._failed, self._status)

    def fail(self, why: str, status: int = 1) -> bool:
        """Tell the other ranks that this one ends, why, and with which exit status.

        Returns whether it was the first to say so, whose cause stays.
        """
        said = f"{status} rank {self._rank}: {why}"
        self._noticed = True
        return bool(self._try(lambda: self._store.compare_set("failed", "", said) == said.encode()))

    def gone(self) -> None:
        """Raise OtherRankFailed for a rank that has vanished, after a connection to it broke."""
        end = time.monotonic() + SILENT
        while time.monotonic() < end:
            self.check()
            if self._silent(4 * BEAT):
                break
            time.sleep(BEAT / 5)
        names = self._silent(4 * BEAT) or ["another rank"]
        self._noticed = True
        raise OtherRankFailed(f"{names[0]} is gone: the connection to it broke")

    def leave(self, patience: float = math.inf) -> None:
        """Wait until rank 0 has ended, or its heartbeat stops, or for so many seconds."""
        until = time.monotonic() + patience if self._rank else 0.0
        while time.monotonic() < until and not self._ended() and not self._silent(4 * BEAT, of=0):
            time.sleep(BEAT / 5)

    def end(self, patience: float = 4 * BEAT) -> None:
        """Say that this rank ends now, and stop its heartbeat.

        Rank 0, which has the store, waits so many seconds for the others to say so, or to be gone.
        """
        self._try(lambda: self._count(f"ended/{self._rank}"))
        until = time.monotonic() + patience
        while self._rank == 0 and time.monotonic() < until and not self._all_over():
            time.sleep(BEAT / 20)
        self._closed.set()
        self._thread.join(BEAT if self._hangs() else SILENT)

    def _all_over(self) -> bool:
        gone = self._silent(4 * BEAT)
        return self._all_said([f"ended/{r}" for r in self._seen if f"rank {r}" not in gone])

    def _all_said(self, keys: list[str]) -> bool:
        """Whether the store has all the keys, or is gone."""
        return self._try(lambda: bool(self._store.check(keys))) is not False

    def _count(self, key: str) -> bool:
        return bool(self._store.add(key, 1))

    def _ended(self) -> bool:
        """Whether rank 0 has ended, or the store with it."""
        return self._all_said(["ended/0"])

    def _silent(self, seconds: float, of: int | None = None) -> list[str]:
        """Return the ranks without a heartbeat for so many seconds."""
        now = time.monotonic()
        ranks = self._seen if of is None else [of]
        return [f"rank {r}" for r in ranks if now - self._seen[r][1] > seconds]

    def _run(self) -> None:
        while not self._closed.wait(BEAT):
            if self._try(self._beat):
                self._answered = time.monotonic()
            else:
                self._note("rank 0 is gone: the store that all ranks share does not answer")

    def _watch(self) -> None:
        """End the process if it does not notice a failure, also while the store hangs."""
        while not self._closed.wait(BEAT):
            if self._hangs():
                self._note("rank 0 gives no sign of life: killed, stopped or out of reach")
                self.grace = EARLY  # as what waits for the store notices nothing
            if self._failed and not self._noticed and time.monotonic() - self._since > self.grace:
                sys.stderr.write(f"rank {self._rank}: ended at once, as {self._failed}\n")
                sys.stderr.flush()
                os._exit(self._status)

    def _hangs(self) -> bool:
        """Whether the store has not answered for ``SILENT`` seconds: rank 0 is stopped."""
        return time.monotonic() - self._answered > SILENT

    def _beat(self) -> bool:
        self._beats += 1
        self._store.set(f"beat/{self._rank}", str(self._beats))
        for other in self._seen:
            self._look(other)
        if self._store.check(["failed"]):
            status, _, why = self._store.get("failed").decode().partition(" ")
            self._note(why, int(status))
        elif silent := self._silent(SILENT):
            self._note(f"{silent[0]} gives no sign of life: killed, stopped or out of reach")
        return True

    def _look(self, other: int) -> None:
        key = f"beat/{other}"
        count = int(self._store.get(key)) if self._store.check([key]) else 0
        if count > self._seen[other][0] or self._store.check([f"ended/{other}"]):
            self._seen[other] = (count, time.monotonic())

    def _note(self, why: str, status: int = 1) -> None:
        if not self._failed:
            self._since, self._status, self._failed = time.monotonic(), status, why

    def _try(self, call: Callable[[], bool]) -> bool | None:
        """Return what a call of the store returns; None if the store is gone, or hangs."""
        if not self._lock.acquire(timeout=4 * BEAT):
            return None
        try:
            return call()
        except RuntimeError:  # torch.distributed's errors are
            return None
        finally:
            self._lock.release()
