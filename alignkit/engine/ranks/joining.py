"""How the processes of a run find each other, and how they end: together."""

from __future__ import annotations

import atexit
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from alignkit.engine.ranks.alone import Alone, put
from alignkit.engine.ranks.group import EXCHANGE, Group
from alignkit.engine.ranks.pulse import OtherRankFailed, Pulse
from alignkit.errors import AlignkitError
from alignkit.lifecycle import ranks
from alignkit.lifecycle.signals import Interrupted, Signals
from alignkit.security.secrets import redact_text

if TYPE_CHECKING:
    from alignkit.protocols import Run

TORCHRUN = 30.0
"""Seconds in which further signals are ignored: torchrun passes them on, and sends more itself."""
LATEST = 600.0
"""Seconds that ranks wait for the last one to load its model."""


@contextmanager
def joined(run: Run, device: torch.device) -> Iterator[None]:
    """Make this process one of the run's ranks while the block runs.

    What it raises ends the other ranks too, with the cause; it is printed by the rank that it
    happened on, with its number.
    """
    store, pulse = _met(run.signals)
    try:
        put(_started(store, pulse, run.signals, device))
        yield
        _farewell()
    except (Interrupted, OtherRankFailed):
        pulse.leave()
        raise
    except BaseException as error:
        pulse.fail(str(error).partition("\nTraceback")[0] or type(error).__name__)
        if ranks.follows():
            sys.stderr.write(f"rank {ranks.rank()}: {redact_text(str(error))}\n")
            sys.stderr.flush()
            pulse.leave()
            raise OtherRankFailed(str(error)) from error
        raise
    finally:
        put(Alone())


def _farewell() -> None:
    """Wait until every rank has done the whole run."""
    from alignkit.engine.ranks.alone import here

    here().gather(None)
    dist.destroy_process_group()


def _met(signals: Signals) -> tuple[Store, Pulse]:
    """Connect to the store that torchrun names, and wait until every rank has."""
    end = time.monotonic() + LATEST
    store = _store(end)
    store.add("joined", 1)
    while int(store.add("joined", 0)) < ranks.size():
        if time.monotonic() > end:
            raise AlignkitError(
                f"only {int(store.add('joined', 0))} of {ranks.size()} ranks have started the run "
                f"{LATEST:.0f} s after the first"
            )
        time.sleep(0.02)
    pulse = Pulse(_store(end), ranks.rank(), ranks.size())
    atexit.register(pulse.end)
    return store, pulse


def _started(store: Store, pulse: Pulse, signals: Signals, device: torch.device) -> Group:
    """Initialise torch.distributed; from now on signals are raised where all ranks agree to."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        store=store,
        rank=ranks.rank(),
        world_size=ranks.size(),
        timeout=EXCHANGE,
    )
    signals.held, signals.patience = True, TORCHRUN
    return Group(store, pulse, signals)


def _store(end: float) -> Store:
    """Return a connection of its own to the store of this start of the run."""
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
        made.set_timeout(EXCHANGE)
        return PrefixStore(f"alignkit/{again}", made)


def _listens(name: str, port: int) -> bool:
    """Whether rank 0 is there; torch's own attempts print a trace of calls each."""
    try:
        socket.create_connection((name, port), timeout=2).close()
    except OSError:
        return False
    return True
