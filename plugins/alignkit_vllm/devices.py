"""Which GPUs an engine in a process of its own gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alignkit.protocols import Policy
from alignkit_vllm import machine

Devices = Callable[[Policy], Sequence[str] | None]
"""Names for CUDA_VISIBLE_DEVICES, None to leave it as it is."""


def own_devices(names: Sequence[str], count: int) -> Devices:
    """Return what mode "device" runs on: ``names``, or the last ``count`` visible GPUs."""

    def choose(policy: Policy) -> Sequence[str] | None:
        if next(policy.model.parameters()).device.type != "cuda":
            return list(names) or None
        return list(names) or machine.visible_here()[-count:]

    return choose


def policy_devices(count: int) -> Devices:
    """Return what mode "server" runs on: the policy's GPU and those after it."""

    def choose(policy: Policy) -> Sequence[str] | None:
        device = next(policy.model.parameters()).device
        if device.type != "cuda":
            return None
        first = device.index or 0
        return machine.visible_here()[first : first + count] or None

    return choose
