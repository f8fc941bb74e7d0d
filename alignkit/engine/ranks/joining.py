"""How the processes of a run find each other, and how they end: together."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store

from alignkit.engine.ranks.alone import Alone, put
from alignkit.engine.ranks.company import company
from alignkit.engine.ranks.group import EXCHANGE, Group
from alignkit.engine.ranks.pulse import OtherRankFailed, Pulse
from alignkit.lifecycle import ranks
from alignkit.lifecycle.signals import Interrupted, Signals
from alignkit.security.secrets import redact_text

if TYPE_CHECKING:
    from alignkit.protocols import Run

TORCHRUN = 30.0
"""Seconds in which further signals are ignored: torchrun passes them on, and sends more itself."""


@contextmanager
def joined(run: Run, device: torch.device) -> Iterator[None]:
    """Make this process one of the run's ranks while the block runs.

    What it raises ends the other ranks too, with the cause; it is printed by the rank that it
    happened on, with its number.
    """
    store, pulse = company().meet()
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
    company().close()


def _started(store: Store, pulse: Pulse, signals: Signals, device: torch.device) -> Group:
    """Initialise torch.distributed; from now on signals are raised where all ranks agree to."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=store,
            rank=ranks.rank(),
            world_size=ranks.size(),
            timeout=EXCHANGE,
        )
    except dist.DistBackendError:  # NCCL's own, on this rank
        raise
    except RuntimeError:  # a rank that was here a moment ago does not come to the exchange
        pulse.gone()
    signals.held, signals.patience = True, TORCHRUN
    return Group(store, pulse, signals)
