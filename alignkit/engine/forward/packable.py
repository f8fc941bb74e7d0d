"""Which models can be packed: asked of the model itself, by trying it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch
from torch import Tensor

from alignkit.engine.forward.attention import UnsupportedAttentionError
from alignkit.engine.forward.packed import Packed, attending
from alignkit.engine.forward.trial import apart, compute_dtype, once_per_model
from alignkit.engine.tokens import TrainRow

if TYPE_CHECKING:
    from torch import nn

RECOMPUTES: WeakSet[nn.Module] = WeakSet()
"""Checkpointed models whose layers find their blocks in the backward pass; see ``recomputing``."""


def can_pack(model: nn.Module) -> bool:
    """Tell whether ``model`` gives packed rows what it gives each row alone; asked of it once.

    It must attend through transformers' interface, to all of a row. Plain checkpointing runs
    attention again in the backward pass, where the blocks are forgotten; that of
    ``recomputing`` takes them along.
    """
    if getattr(model, "is_gradient_checkpointing", False) and model not in RECOMPUTES:
        return False
    return _qualifies(model) and _agrees(model)


def _qualifies(model: nn.Module) -> bool:
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        return False
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    usual = model.config._attn_implementation in ("sdpa", "eager", "flash_attention_2")
    return usual and kinds == {"full_attention"}


@once_per_model
def _agrees(model: Any) -> bool:
    """Compare packed rows with the rows one by one, to the rounding of what it computes in.

    In float64 gradients too: norms that round to float32 inside (Qwen's, Llama's) round the
    gradient of a shared prompt elsewhere than those of its copies. That is no less exact, but
    float64 is for comparing to the last digits, so such a model's rows are not packed there.
    """
    vocabulary = len(model.get_input_embeddings().weight)
    shapes = (((1, 2, 3), (4, 5, 6, 7)), ((1, 2, 3), (6, 4)), ((5, 3), (2, 1, 4)))
    rows = [TrainRow(_within(p, vocabulary), _within(r, vocabulary)) for p, r in shapes]
    packed = Packed.of(rows, next(model.parameters()).device)
    dtype = compute_dtype(next(model.parameters()))
    precise = dtype == torch.float64
    try:
        with torch.set_grad_enabled(precise):
            with attending(model, packed.blocks):
                got = model(
                    input_ids=packed.input_ids, position_ids=packed.position_ids, use_cache=False
                ).logits[0, packed.positions]
            want = torch.cat([_alone(model, row) for row in rows])
            if got.requires_grad:
                got, want = (torch.cat([x.flatten(), _slope(model, x)]) for x in (got, want))
    except UnsupportedAttentionError:
        return False
    return apart(got, want) <= (1e-10 if precise else 1e-3 if dtype == torch.float32 else 0.1)


def _slope(model: Any, logits: Tensor) -> Tensor:
    """Return the gradient of some sum of ``logits`` by the trainable weights, flattened."""
    weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype, device=logits.device)
    trainable = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(
        logits.flatten() @ weights, trainable, allow_unused=True, materialize_grads=True
    )
    return torch.cat([grad.flatten() for grad in grads])


def _alone(model: Any, row: TrainRow) -> Tensor:
    """Return the logits (T, V) that predict the response of ``row``."""
    ids = torch.tensor([[*row.prompt_ids, *row.response_ids[:-1]]], device=model.device)
    logits: Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return logits[len(row.prompt_ids) - 1 :]


def _within(ids: tuple[int, ...], vocabulary: int) -> tuple[int, ...]:
    return tuple(i % vocabulary for i in ids)
