"""The processes of a run are in touch from the start of the command, before a model is loaded.

So a rank that is refused, fails or is killed before all have met ends the others too, with the
cause. The connection is made by a thread: a rank that is ready does not wait for it.
"""

from __future__ import annotations

import atexit
import os
import socket
import threading
import time
from datetime import timedelta

from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from alignkit.engine.ranks.pulse import GRACE, Pulse
from alignkit.errors import AlignkitError
from alignkit.lifecycle import ranks

CALL = timedelta(seconds=20)
"""Longest time of one call of the store."""
CONNECT = 300.0
"""Seconds that a rank tries to reach rank 0: torch's own limit."""
LATEST = 600.0
"""Seconds that ranks wait for the last one to load its model."""
LINGER = 20.0
"""Seconds that a rank that ends before all have met gives the others to start and hear of it."""


class Company:
    """This rank's connection to the others of one run."""

    def __init__(self, number: int) -> None:
        """Connect; ``number`` counts the runs of this process."""
        self._number = number
        self._met = False
        self.over = False
        """Whether this rank has told the others that it ends."""
        self._wrong: AlignkitError | None = None
        self._store: Store | None = None
        self._pulse: Pulse | None = None
        self._connecting = threading.Thread(target=self._connect, name="connecting", daemon=True)
        self._connecting.start()

    def meet(self) -> tuple[Store, Pulse]:
        """Wait until every rank is ready; raises what ended one of them."""
        store, pulse = self._connected()
        try:
            self._wait(store, pulse)
        except RuntimeError:  # of torch.distributed: the store is gone
            pulse.gone()
        self._met, pulse.grace = True, GRACE
        return store, pulse

    def _wait(self, store: Store, pulse: Pulse) -> None:
        end = time.monotonic() + LATEST
        store.add("joined", 1)
        while (here := int(store.add("joined", 0))) < ranks.size():
            pulse.check()
            if time.monotonic() > end:
                raise AlignkitError(
                    f"only {here} of {ranks.size()} ranks have started the run {LATEST:.0f} s "
                    f"after the first"
                )
            time.sleep(0.02)

    def tell(self, why: str, status: int) -> None:
        """Tell ranks that have not met yet that this one ends, and wait until they have heard."""
        self._connecting.join(LINGER)
        if self._pulse is None or self._met or self.over:
            return
        if self._pulse.fail(why, status):
            self._pulse.leave(LINGER)
        self.close(LINGER)

    def close(self, patience: float = 2.0) -> None:
        """End the signs of life; rank 0 waits so many seconds for the others to end theirs."""
        if self._pulse and not self.over:
            self.over = True
            self._pulse.end(patience)

    def _connected(self) -> tuple[Store, Pulse]:
        while self._connecting.is_alive():
            self._connecting.join(0.1)  # in which signals arrive
        if self._wrong:
            raise self._wrong
        assert self._store is not None
        assert self._pulse is not None
        return self._store, self._pulse

    def _connect(self) -> None:
        end = time.monotonic() + CONNECT
        try:
            self._store = _store(end, self._number)
            self._pulse = Pulse(_store(end, self._number), ranks.rank(), ranks.size())
        except AlignkitError as error:
            self._wrong = error


_made: list[Company] = []


def company() -> Company:
    """Return this process's connection to the other ranks of the present run, which it makes."""
    if not _made or _made[-1].over:
        _made.append(Company(len(_made)))
        atexit.register(_made[-1].close)
    return _made[-1]


def _store(end: float, number: int) -> Store:
    """Return a connection of its own to the store that torchrun names, for this start of a run."""
    name, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), os.environ.get("MASTER_PORT", "")
    if not port.isdigit():
        raise AlignkitError(
            f"this is one of {ranks.size()} processes (WORLD_SIZE), but MASTER_PORT is not set: "
            f"start them by torchrun"
        )
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    hosts = ranks.rank() == 0 and not agent
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    while True:
        if not (hosts or _listens(name, int(port)) or time.monotonic() > end):
            time.sleep(0.1)
            continue
        try:
            made = TCPStore(
                name,
                int(port),
                is_master=hosts,
                timeout=timedelta(seconds=2),
                wait_for_workers=False,
                multi_tenant=True,
            )
        except RuntimeError as error:
            if time.monotonic() > end:
                raise AlignkitError(f"rank 0 cannot be reached at {name}:{port}: {error}") from None
            continue
        made.set_timeout(CALL)
        return PrefixStore(f"alignkit/{again}/{number}", made)


def _listens(name: str, port: int) -> bool:
    """Whether rank 0 is there; torch's own attempts print a trace of calls each."""
    try:
        socket.create_connection((name, port), timeout=2).close()
    except OSError:
        return False
    return True
