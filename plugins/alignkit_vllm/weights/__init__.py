"""Sends the policy's weights to the engine, from memory to memory, without files.

An engine in this process uses the tensors as they are. To another process they are sent by vLLM's
own transfer between GPUs (:mod:`.transfer`) or, where that is impossible, over a socket
(:mod:`.sockets`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch import Tensor

from alignkit.protocols import Adapted

if TYPE_CHECKING:
    from alignkit.protocols import Policy

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Parts of parameter names that torch.compile, FSDP and activation checkpointing insert."""


def named_weights(policy: Policy, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yield every weight once with its name in a checkpoint, floating-point ones as ``dtype``.

    A tied output head is yielded only as the embedding (if sharded, as both, which engines accept
    too). Sharded weights are gathered one at a time, so all ranks have to iterate.
    """
    for name, value in _each_once(policy):
        full = value.full_tensor() if _is_sharded(value) else value
        yield name, full.detach().to(sent_as(value, dtype))


def shapes(policy: Policy, dtype: torch.dtype) -> Iterator[tuple[str, torch.dtype, torch.Size]]:
    """Yield name, type and full shape of what :func:`named_weights` yields, without gathering."""
    for name, value in _each_once(policy):
        yield name, sent_as(value, dtype), value.shape


def sent_as(value: Tensor, dtype: torch.dtype) -> torch.dtype:
    """Return the type in which a weight is sent."""
    return dtype if value.is_floating_point() else value.dtype


def _each_once(policy: Policy) -> Iterator[tuple[str, Any]]:
    """Yield the weights with their names in a checkpoint; of tied weights only the first."""
    seen: dict[tuple[int, torch.Size], ref[Tensor]] = {}
    merged = policy.weights() if isinstance(policy, Adapted) else None
    for name, value in merged or policy.model.state_dict().items():
        if not _is_sharded(value) and value.numel():
            place = (value.data_ptr(), value.shape)
            if place in seen and seen[place]() is not None:  # a merged one that is gone leaves it
                continue
            seen[place] = ref(value)
        yield clean(name), value


def _is_sharded(value: Any) -> bool:
    return hasattr(value, "full_tensor")


def clean(name: str) -> str:
    """Return a parameter's name in a checkpoint.

    >>> clean("_orig_mod.model.layers.0._checkpoint_wrapped_module.mlp.up_proj.weight")
    'model.layers.0.mlp.up_proj.weight'
    """
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def ranks(policy: Policy) -> int:
    """Return how many processes have to take part in gathering the weights; 1 = only this one."""
    if any(map(_is_sharded, policy.model.parameters())):
        return torch.distributed.get_world_size()
    return 1
