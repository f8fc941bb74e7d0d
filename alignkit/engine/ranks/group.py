"""The ranks of a run under torchrun: what they send each other, by torch.distributed.

Before each exchange the ranks meet: one that comes early waits in Python, where it can be told
that another has failed. The exchange itself takes seconds at most, so no rank waits inside it for
one that does not come. Two lanes are kept apart, the main thread's and that of a batch sampled
ahead, each in its own order.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import Store

from alignkit.engine.ranks.pulse import Pulse
from alignkit.engine.ranks.shares import slices
from alignkit.engine.ranks.wire import packed, unpacked
from alignkit.footprint import BUCKET
from alignkit.lifecycle.signals import Interrupted, Signals

T = TypeVar("T")

EXCHANGE = timedelta(seconds=20)
"""Longest time of one exchange between ranks that have met."""
SHORT = 4096
"""Bytes that are sent in one go with their length."""
LOST = re.compile(r"gloo|NCCL|[Cc]onnection|[Tt]imed out")
"""In what torch says when another rank does not answer."""

AGAIN = (0.0002, 0.005)
"""Seconds between two looks for the other ranks, at first and at most."""


class Group:
    """See :class:`alignkit.engine.ranks.alone.Ranks`."""

    def __init__(self, store: Store, pulse: Pulse, signals: Signals) -> None:
        """Take ``torch.distributed`` as it was initialised; ``store`` is the main thread's."""
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.seconds = {"wait": 0.0, "exchange": 0.0}
        self._store, self._pulse, self._signals = store, pulse, signals
        self._main = dist.group.WORLD
        self._beside = dist.new_group(timeout=EXCHANGE)
        self._met = {"main": 0, "beside": 0}
        self._lock = threading.Lock()
        self._thread = threading.get_ident()

    def share(self, costs: Sequence[int]) -> list[int]:
        """Return the places of the items that this rank does."""
        return slices(costs, self.size)[self.rank]

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in their order."""
        data = packed(value)
        found = self._all(_framed(data[: SHORT - 8], len(data), SHORT))
        longest = max(_length(part) for part in found)
        if longest > SHORT - 8:
            found = self._all(_framed(data, len(data), longest + 8))
        return [unpacked(part[8 : 8 + _length(part)]) for part in found]

    def merge(self, mine: Mapping[int, T]) -> dict[int, T]:
        """Return what all ranks found, by place, in the order of the places."""
        both = [pair for found in self.gather(dict(mine)) for pair in found.items()]
        return dict(sorted(both, key=lambda pair: pair[0]))

    def first(self, value: T) -> T:
        """Return rank 0's value."""
        return self.gather(value if self.rank == 0 else None)[0]  # type: ignore[return-value]

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the ranks; 16-bit ones are added in float32."""
        for bucket in _buckets(tensors):
            self._add(bucket)  # whose sum is freed before the next is made

    def copy(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by rank 0's."""
        for tensor in tensors:
            whole = tensor.detach().contiguous()
            self._exchange(lambda t=whole: dist.broadcast(t, 0, async_op=True))  # type: ignore[misc]
            tensor.detach().copy_(whole)

    def poll(self) -> None:
        """Raise what ended another rank."""
        self._pulse.check()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Raise what ended another rank in place of torch's error about the connection to it."""
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, dist.DistError) or LOST.search(str(error)):
                self._pulse.gone()
            raise

    def agree(self) -> None:
        """Raise Interrupted on every rank if a signal has reached one of them."""
        own = self._signals.pending
        asked = self.gather((own.cause, own.exit_status) if own else None)
        if ended := [said for said in asked if said]:
            self._signals.held = False
            self._signals.pending = Interrupted(*ended[0])
            raise self._signals.pending

    def let_in(self) -> None:
        """Do as :meth:`agree`, unless signals are deferred, or this is done beside a step."""
        if self._in_turn() and not self._signals.deferring:
            self.agree()

    def _add(self, bucket: Sequence[Tensor]) -> None:
        """Add tensors in one go; one by itself that is in 32 bits is not copied for it."""
        parts = [(t.float() if t.dtype.itemsize < 4 else t).reshape(-1) for t in bucket]
        flat = parts[0] if len(parts) == 1 else torch.cat(parts)
        del parts
        self._exchange(lambda: dist.all_reduce(flat, async_op=True))
        for own, part in zip(bucket, torch.split(flat, [t.numel() for t in bucket]), strict=True):
            own.copy_(part.view_as(own))

    def _all(self, mine: Tensor) -> list[bytes]:
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        lane = self._main if self._in_turn() else self._beside
        self._exchange(lambda: dist.all_gather(parts, mine, group=lane, async_op=True))
        return [part.numpy().tobytes() for part in parts]

    def _exchange(self, start: Callable[[], Any]) -> None:
        """Meet, and carry the exchange out; raises what ended another rank."""
        begun = time.perf_counter()
        try:
            self._meet("main" if self._in_turn() else "beside")
            met = time.perf_counter()
            start().wait(EXCHANGE)
        except RuntimeError:  # of torch.distributed: a connection has broken
            self._pulse.gone()
        if self._in_turn():
            self.seconds["wait"] += met - begun
            self.seconds["exchange"] += time.perf_counter() - met

    def _meet(self, lane: str) -> None:
        """Wait until every rank is here, or raise what ended one of them."""
        self._met[lane] += 1
        key, pause = f"{lane}/{self._met[lane]}", AGAIN[0]
        here = self._count(key, 1)
        while here < self.size:
            self._pulse.check()
            time.sleep(pause)
            pause = min(1.2 * pause, AGAIN[1])
            here = self._count(key, 0)
        if self.rank == 0 and self._met[lane] > 1:
            with self._lock:  # all have seen that they met there
                self._store.delete_key(f"{lane}/{self._met[lane] - 1}")

    def _in_turn(self) -> bool:
        """Whether this is the thread that carries out the run, not one that samples beside it."""
        return threading.get_ident() == self._thread

    def _count(self, key: str, more: int) -> int:
        with self._lock:
            return int(self._store.add(key, more))


def _framed(data: bytes, length: int, room: int) -> Tensor:
    """Return ``length`` and ``data`` as (room,) bytes."""
    whole = bytearray(length.to_bytes(8, "big") + data)
    return torch.frombuffer(whole + bytearray(room - len(whole)), dtype=torch.uint8)


def _length(data: bytes) -> int:
    return int.from_bytes(data[:8], "big")


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Part the tensors into lists of one dtype and about ``BUCKET`` numbers."""
    found: list[list[Tensor]] = []
    room = 0
    for tensor in tensors:
        if not found or room < tensor.numel() or found[-1][0].dtype != tensor.dtype:
            found.append([])
            room = BUCKET
        found[-1].append(tensor)
        room -= tensor.numel()
    return found
