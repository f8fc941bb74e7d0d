"""Engines that several ranks share: one rank has them and sends the weights, all of them ask.

Ranks share the server at ``url``, the engines that one machine has on GPUs of their own, and an
engine that is split over their GPUs. They ask it over HTTP, each for its own prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alignkit.engine.ranks import here
from alignkit.errors import AlignkitError
from alignkit.lifecycle import ranks
from alignkit_vllm import machine
from alignkit_vllm.engines import Engine
from alignkit_vllm.engines.fleet import Fleet
from alignkit_vllm.engines.server import ServerEngine
from alignkit_vllm.requests import Answer, Request

if TYPE_CHECKING:
    from alignkit.protocols import Policy
    from alignkit_vllm.settings import VllmSettings

Addresses = list[tuple[str, str]]
"""The URL and the key of each engine."""


def sharers(keys: VllmSettings) -> range:
    """Return the ranks that share engines with this one; a rank alone has its own.

    The first of them starts the engines, or is the one that sends the weights to the server.
    """
    size, rank = ranks.size(), ranks.rank()
    if keys.url is not None:
        return range(size)
    local = machine.ranks_here()
    first = rank // local * local
    together = {"device": local, "server": keys.tensor_parallel_size}.get(keys.mode, 1)
    start = first + (rank - first) // together * together
    return range(start, start + together)


class SharedEngine(Engine):
    """What one rank sees of engines that it shares. ``start`` and ``load`` are for all ranks."""

    def __init__(
        self,
        together: range,
        own: ServerEngine | Fleet | None,
        reach: Callable[[Addresses], ServerEngine | Fleet],
    ) -> None:
        """Take the ranks ``together``, of which the first has the engines, its ``own``.

        ``reach`` returns what another rank asks them by.
        """
        self.together, self.own, self._reach = together, own, reach
        self._engine: Engine | None = own
        self._addresses: Addresses = []
        self._loading = False
        self._version = self._sent = ""
        """This rank's name for the weights, and that of the rank that sent them."""

    @property
    def peer(self) -> str:  # type: ignore[override]
        """The engine's name, and who shares it."""
        first, last = self.together[0], self.together[-1]
        name = self._engine.peer if self._engine is not None else "the vLLM server"
        return f"{name}, which ranks {first} to {last} share"

    def start(self, folder: Path, policy: Policy) -> None:
        self._folder, self._policy = folder, policy
        if self.own is not None:
            self.own.start(folder, policy)
        self._meet("")

    def _meet(self, version: str) -> None:
        """Tell the other ranks where this rank's engines are and which weights they hold."""
        mine = (version, addresses(self.own)) if self.own is not None else None
        told = here().gather(mine)[self.together[0]]
        assert told is not None  # the first of them always has the engines
        self._sent, found = told
        if self.own is None and found != self._addresses:  # at the start, and after a restart
            self.close()
            self._addresses = found
            self._engine = self._reach(found)
            self._engine.start(self._folder, self._policy)

    def load(self, policy: Policy, dtype: torch.dtype, version: str) -> None:
        """Send the weights, from one rank, once no rank samples with the former ones."""
        if not self._loading:
            here().gather(None)
        self._loading = True
        if self.own is not None:
            self.own.load(policy, dtype, version)
        self._meet(version)
        self._version, self._loading = version, False

    def recover(self, lost: Exception) -> None:
        """Restart an engine that is lost while weights are sent to it.

        Raises AlignkitError at any other time: the ranks are at different places then, and the one
        that could restart it may wait for the others.
        """
        if self._loading and self.own is not None:
            self.own.recover(lost)
            return
        here().poll()  # the rank that had it may have failed
        raise AlignkitError(f"{self.peer}, was lost; resume the run to start again: {lost}")

    def holds(self) -> str:
        if self._asked().holds() == self._sent:
            return self._version
        here().poll()
        raise AlignkitError(
            f"{self.peer}, no longer holds the weights it was sent; let no other program use it, "
            "and resume the run"
        )

    def _asked(self) -> Engine:
        assert self._engine is not None
        return self._engine

    def columns(self) -> Mapping[str, Any]:
        return self._asked().columns()

    def stream(self, requests: Sequence[Request]) -> Generator[tuple[int, list[Answer]]]:
        return self._asked().stream(requests)

    def max_len(self) -> int:
        return self._asked().max_len()

    def progress(self) -> str:
        return self._engine.progress() if self._engine is not None else "its rank to start it"

    def computed(self) -> Mapping[str, str]:
        shared = f"shared by ranks {self.together[0]} to {self.together[-1]}"
        return {**self._asked().computed(), "engine": shared}

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()

    def kill(self) -> None:
        if self._engine is not None:
            self._engine.kill()

    def log_end(self) -> str:
        return self._engine.log_end() if self._engine is not None else ""


def addresses(engine: ServerEngine | Fleet) -> Addresses:
    """Return where each of the engines is, and its key."""
    engines = engine.engines if isinstance(engine, Fleet) else [engine]
    return [(one.client.url, one.client.key) for one in engines]
