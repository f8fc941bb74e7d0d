"""How work is divided among ranks: the interface, and its simplest case, one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from torch import Tensor

T = TypeVar("T")


class Ranks(Protocol):
    """The processes of a run, seen from one of them.

    Every rank calls the same methods in the same order, or all of them end.
    """

    rank: int
    """This process, from 0; rank 0 alone writes the run directory."""
    size: int

    @property
    def seconds(self) -> Mapping[str, float]:
        """What this rank has spent on others so far: "wait" until they come to an exchange, and
        "exchange". What torch exchanges by itself for a policy that is cut is not counted."""
        ...

    def share(self, costs: Sequence[int]) -> list[int]:
        """Return the places of the items that this rank does; every place is one rank's."""
        ...

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in their order; see :mod:`alignkit.engine.ranks.wire`."""
        ...

    def merge(self, mine: Mapping[int, T]) -> dict[int, T]:
        """Return what all ranks found, by place, in the order of the places."""
        ...

    def first(self, value: T) -> T:
        """Return rank 0's value."""
        ...

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the ranks; 16-bit ones are added in float32."""
        ...

    def copy(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by rank 0's."""
        ...

    def poll(self) -> None:
        """Raise what ended another rank."""
        ...

    def guarded(self) -> AbstractContextManager[None]:
        """Return a block in which torch speaks with other ranks; raises what ended one of them."""
        ...

    def agree(self) -> None:
        """Raise Interrupted on every rank if a signal has reached one of them."""
        ...

    def let_in(self) -> None:
        """Do as :meth:`agree`, unless signals are deferred, or this is done beside a step."""
        ...


class Alone:
    """A run of one process."""

    rank, size = 0, 1
    seconds: Mapping[str, float] = MappingProxyType({})

    def share(self, costs: Sequence[int]) -> list[int]:
        return list(range(len(costs)))

    def gather(self, value: T) -> list[T]:
        return [value]

    def merge(self, mine: Mapping[int, T]) -> dict[int, T]:
        return dict(mine)

    def first(self, value: T) -> T:
        return value

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Add nothing."""

    def copy(self, tensors: Sequence[Tensor]) -> None:
        """Leave them."""

    def poll(self) -> None:
        """There is no other rank."""

    def guarded(self) -> AbstractContextManager[None]:
        return nullcontext()

    def agree(self) -> None:
        """Signals are raised where they arrive."""

    def let_in(self) -> None:
        """Signals are raised where they arrive."""


_here: list[Any] = [Alone()]


def here() -> Ranks:
    """Return the ranks of the present run; one process is alone."""
    found: Ranks = _here[0]
    return found


def put(ranks: Ranks) -> None:
    """Set what :func:`here` returns."""
    _here[0] = ranks
