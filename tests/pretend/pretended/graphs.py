"""CUDA graphs: operations are noted as they run, and run again on the same tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from pretended import syncs

_open: list[Graph] = []


class Graph:
    """Stands in for ``torch.cuda.CUDAGraph``."""

    def __init__(self) -> None:
        self._work: list[tuple[Any, Any, Any, Any]] = []

    def add(self, func: Any, args: Any, kwargs: Any, found: Any) -> None:
        """Note an operation and its results."""
        self._work.append((func, args, kwargs, found))

    def replay(self) -> None:
        """Run every operation again; results go where the first ones are."""
        for func, args, kwargs, found in self._work:
            _put(found, func(*args, **kwargs))


def _put(old: Any, new: Any) -> None:
    if isinstance(old, Tensor):
        if old.data_ptr() != new.data_ptr():
            old.copy_(new)
    elif isinstance(old, (tuple, list)):
        for a, b in zip(old, new, strict=True):
            _put(a, b)


def recorded(func: Any, args: Any, kwargs: Any, found: Any) -> None:
    """Note an operation in the graph that is being recorded, if one is."""
    for graph in _open:
        graph.add(func, args, kwargs, found)


@contextmanager
def graph(cuda_graph: Graph, **_: Any) -> Iterator[None]:
    """Stand in for ``torch.cuda.graph``: record what the block does, refuse what waits."""
    _open.append(cuda_graph)
    syncs.capturing(True)
    try:
        yield
    finally:
        syncs.capturing(False)
        _open.pop()
