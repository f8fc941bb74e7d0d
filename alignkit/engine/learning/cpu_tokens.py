"""How many tokens a micro-batch has on a CPU.

There a micro-batch gains no speed beyond some hundred tokens, while what its layers keep for the
backward pass grows with it.
"""

from __future__ import annotations

from torch import nn

from alignkit.engine.forward.checkpointing import is_checkpointed
from alignkit.protocols import Adapted, Policy

MOST, LEAST = 2048, 1024
"""Tokens of a micro-batch, where a token keeps little and where it keeps much. More than ``MOST``
would take memory without being faster (measured from 512 to 6,400 on models of 0.6 and 4.5 million
parameters)."""

KEPT = 2**26
"""Bytes that a micro-batch between the two may keep for the backward pass."""


def cpu_tokens(policy: Policy) -> int:
    """Return the most tokens of a micro-batch of ``policy`` on a CPU."""
    if is_checkpointed(policy.model):  # its layers keep next to nothing
        return MOST
    base = policy.base if isinstance(policy, Adapted) else None
    kept = _kept(base or policy.model)  # an adapter keeps little more than the layer it adapts
    return min(max(KEPT // max(kept, 1), LEAST), MOST)


def _kept(model: nn.Module) -> int:
    """Return about how many bytes a token keeps: inputs and outputs of each layer's products.

    Embeddings and the output head are left out: they keep none, and logits are never kept whole.
    Measured on a Qwen2, its layers keep 1.3 times as much.
    """
    names = "get_input_embeddings", "get_output_embeddings"
    ends = [getattr(model, name)() for name in names if hasattr(model, name)]
    apart = {id(p) for end in ends if isinstance(end, nn.Module) for p in end.parameters()}
    weights = (p for p in model.parameters() if p.dim() == 2 and id(p) not in apart)
    return sum(sum(weight.shape) * weight.element_size() for weight in weights)
