"""The forward passes for rows: packed, padded, or each alone.

Each returns log-probabilities and entropies, (N,), and the mask (B, T) of their places.
``packable`` tries them on a model to find which it supports.

Shapes: B = rows, T = response tokens of the longest row, N = response tokens of all rows,
H = hidden size, V = vocabulary. Natural logarithms; entropies in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from alignkit.engine.forward.head import linear_logprobs, logits_logprobs
from alignkit.engine.forward.packed import Packed, attending
from alignkit.engine.forward.trial import once_per_model
from alignkit.engine.ranks.shards import within
from alignkit.engine.tokens import Padded, TrainRow, onto

Found = tuple[Tensor, Tensor, Tensor]
"""Log-probs (N,), entropies (N,), and the mask (B, T) of where they go."""


def padded(model: nn.Module, rows: Sequence[TrainRow], *, pad_id: int, **how: Any) -> Found:
    """Compute ``rows`` side by side, padded on the right to the longest."""
    device = next(model.parameters()).device
    batch = Padded.of(rows, pad_id)
    row = torch.arange(len(rows))[:, None].expand_as(batch.mask)  # (B, T)
    row, position, targets = (
        onto(device, x[batch.mask]) for x in (row, batch.positions, batch.targets)
    )
    ids = onto(device, batch.input_ids)
    found = token_logprobs(model, ids, (row, position), targets, **how)
    return *found, onto(device, batch.mask)


def alone(model: nn.Module, rows: Sequence[TrainRow], **how: Any) -> Found:
    """Compute each of ``rows`` in a pass of its own, the simplest way."""
    found = [padded(model, [row], pad_id=0, **how) for row in rows if row.trained_ids]
    mask = _mask(rows, next(model.parameters()).device)
    if not found:
        nothing = torch.zeros(0, device=mask.device)
        return nothing, nothing, mask
    logprobs, entropies = (torch.cat([part[i] for part in found]) for i in (0, 1))
    return logprobs, entropies, mask


def packed(model: nn.Module, rows: Sequence[TrainRow], **how: Any) -> Found:
    """Compute ``rows`` as one row without padding, with shared prompts only once."""
    device = next(model.parameters()).device
    batch = Packed.of(rows, device)
    at = (torch.zeros_like(batch.positions), batch.positions)
    targets = onto(device, torch.tensor([i for row in rows for i in row.trained_ids]))
    has_linear_head(model)  # it tries the model out, which must not happen below
    with attending(model, batch.blocks):
        found = token_logprobs(
            model, batch.input_ids, at, targets, position_ids=batch.position_ids, **how
        )
    return *found, _mask(rows, device)


def _mask(rows: Sequence[TrainRow], device: torch.device) -> Tensor:
    """Return (B, T) bool, True at trained tokens."""
    size = torch.tensor([len(row.trained_ids) for row in rows])  # (B,)
    return onto(device, torch.arange(int(size.max())) < size[:, None])


def token_logprobs(
    model: nn.Module,
    input_ids: Tensor,
    at: tuple[Tensor, Tensor],
    targets: Tensor,
    *,
    position_ids: Tensor | None = None,
    temperature: float = 1.0,
    with_entropy: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return the log-probs of ``targets`` (N,), predicted at N places of ``input_ids`` (B, L).

    ``at`` is the row and the position of each place, both (N,) int64; ``position_ids`` (B, L)
    are 0, 1, 2 … unless given. Also returns the entropies (N,), which carry no gradient and are
    zeros unless asked for.
    """
    inputs: dict[str, Any] = {"input_ids": input_ids, "use_cache": False}
    if position_ids is not None:
        inputs["position_ids"] = position_ids
    if has_linear_head(model):

        def through_head(model: nn.Module) -> tuple[Tensor, Tensor]:
            hidden = _decoder(model)(**inputs).last_hidden_state
            head = _head(model)
            return linear_logprobs(
                hidden[at],
                head.weight,
                targets,
                bias=head.bias,
                temperature=temperature,
                with_entropy=with_entropy,
            )

        return within(model, through_head)
    logits = _full_logits(model, inputs)[at]  # (N, V)
    return logits_logprobs(logits, targets, temperature=temperature)


def _full_logits(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    """Return (B, L, V); cache arguments are passed only to transformers models."""
    if not hasattr(model, "generation_config"):
        inputs = {name: value for name, value in inputs.items() if name != "use_cache"}
    logits: Tensor = model(**inputs).logits
    return logits


# ---------------------------------------------------------------- the head


@once_per_model
@torch.no_grad()
def has_linear_head(model: nn.Module) -> bool:
    """Whether the model's logits are a linear map of its decoder's last hidden state.

    Four tokens run through the model while the head returns large made-up logits. Two conditions
    must hold: the head's input is the decoder's last hidden state, and the model's output is what
    the head returned. (Large, because soft-capping hardly shows on a fresh model's small logits.) A
    model whose logits are soft-capped, scaled or otherwise changed computes them in full, and so
    does one whose decoder cannot be called by itself.
    """
    head, decoder = _head(model), _decoder(model)
    if not isinstance(head, nn.Linear) or decoder is None:
        return False
    try:
        return _is_linear(model, head, decoder)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # noqa: BLE001 - a decoder may raise anything; the whole model is used then
        return False


def _is_linear(model: nn.Module, head: nn.Linear, decoder: Any) -> bool:
    seen: list[Tensor] = []

    def replace(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.extend(args)
        return torch.linspace(-100, 100, output.numel()).view_as(output).to(output)

    ids = torch.arange(4, device=head.weight.device)[None] % len(head.weight)
    hook = head.register_forward_hook(replace)
    try:
        hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state
        logits = model(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()
    given = torch.linspace(-100, 100, logits.numel()).view_as(logits).to(head.weight)
    return len(seen) == 1 and torch.allclose(seen[0], hidden) and _same(logits, given)


def _same(a: Tensor, b: Tensor) -> bool:
    """Compare values of any dtypes, to the rounding of the coarser one."""
    return torch.allclose(a.double(), b.double(), rtol=1e-2, atol=1e-6)


def _head(model: nn.Module) -> Any:
    find = getattr(model, "get_output_embeddings", None)
    return find() if find else None


def _decoder(model: nn.Module) -> Any:
    find = getattr(model, "get_decoder", None)
    return find() if find else None
