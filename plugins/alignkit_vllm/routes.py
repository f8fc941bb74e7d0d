"""How the policy's weights are sent to an engine, and why. Only this module decides it.

- ``memory``: the engine is in the trainer's process and uses the tensors as they are;
- ``ipc``: the engine is a process on the policy's card and reads the trainer's memory (CUDA IPC);
- ``nccl``: the engines are on other cards, of this machine or another, and get one NCCL broadcast;
- ``socket``: bytes over TCP, which is slow, where none of these is possible.

A plan shows what is expected (:func:`expected`). A run decides when the engine's workers have
reported where they are (:func:`chosen`). Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from alignkit_vllm import machine

if TYPE_CHECKING:
    from alignkit_vllm.settings import VllmSettings

Way = Literal["memory", "ipc", "nccl", "socket"]

WORDS = {
    "memory": "tensors shared in memory",
    "ipc": "CUDA IPC",
    "nccl": "NCCL",
    "socket": "a socket",
}
FORCED = 'rollout.weights = "socket"'
SPLIT = "the engine is split over the policy's card and others"


@dataclass(frozen=True, slots=True)
class Route:
    """A way of sending weights, and why it was chosen."""

    way: Way
    why: str

    def __str__(self) -> str:
        return f"{WORDS[self.way]}: {self.why}"


IN_PROCESS = Route("memory", "the engine is in the trainer's process")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker of the engine is, as it reports itself."""

    gpu: str
    """UUID of its GPU, "" on a CPU."""
    transfer: str
    """The vLLM transfer it was started with, "" if none."""
    workers: int
    """Number of workers of the whole server."""


def chosen(
    gpu: str, servers: Sequence[Sequence[Place]], *, ranks: int = 1, wanted: str = "auto"
) -> Route:
    """Return how weights are sent from a trainer's ``gpu`` to all ``servers``.

    Args:
        gpu: UUID of the policy's GPU, "" on a CPU.
        servers: The workers that each server reported.
        ranks: Number of processes that the policy is sharded over.
        wanted: The key ``rollout.weights``.
    """
    if wanted == "socket":
        return Route("socket", FORCED)
    places = [place for server in servers for place in server]
    if why := _no_gpus(gpu, places):
        return Route("socket", why)
    for server in servers:
        if any(place.workers != len(server) for place in server):
            told = f"a server reported only {len(server)} of its {server[0].workers} workers"
            return Route("socket", told)
    return _between_gpus(gpu, places, ranks)


def _no_gpus(gpu: str, places: Sequence[Place]) -> str:
    if not gpu:
        return "the policy is on a CPU"
    return "the engine is on a CPU" if any(not place.gpu for place in places) else ""


def _between_gpus(gpu: str, places: Sequence[Place], ranks: int) -> Route:
    theirs = [place.gpu for place in places]
    started = " and ".join(sorted({place.transfer or "no transfer" for place in places}))
    if len({*theirs}) < len(theirs):
        return Route("socket", "several workers share a card, and NCCL needs one card for each")
    if theirs == [gpu]:
        return _on_the_card(started, ranks)
    if gpu in theirs:
        return Route("socket", SPLIT)
    if started == "nccl":
        number = f"{len(theirs)} cards" if len(theirs) > 1 else "a card"
        return Route("nccl", f"the engine has {number} of its own")
    return Route(
        "socket", f"engines on cards of their own need nccl, and were started with {started}"
    )


def _on_the_card(started: str, ranks: int) -> Route:
    if started != "ipc":
        why = f"an engine on the policy's card needs ipc, and was started with {started}"
        return Route("socket", why)
    if ranks > 1:
        return Route("socket", f"CUDA IPC would need memory of all {ranks} ranks")
    return Route("ipc", "the engine is on the policy's card")


def expected(keys: VllmSettings) -> Route:
    """Return how weights will be sent on this machine, as far as is known before a run."""
    if keys.mode == "colocate":
        return IN_PROCESS
    if keys.weights == "socket":
        return Route("socket", FORCED)
    found = machine.installed()
    if found is not None and found.for_cpu:
        return Route("socket", f"{found.distribution} runs on CPUs")
    if not machine.visible_here():
        return Route("socket", "there is no CUDA device here")
    return _on_gpus(keys)


def _on_gpus(keys: VllmSettings) -> Route:
    if keys.url is not None:
        return Route("nccl", "if the server has cards of its own, which it reports at the start")
    if keys.mode == "device":
        return Route("nccl", "the engine has cards of its own")
    if keys.tensor_parallel_size == 1:
        return Route("ipc", "the engine is on the policy's card")
    return Route("socket", SPLIT)
