"""Log-probabilities and entropies of response tokens, without the (B, T, V) logits.

The output head is applied to the hidden states of response tokens only, and never all at once:
see ``head``.

Shapes: B = rows, T = response tokens of the longest row, N = response tokens of all rows,
H = hidden size, V = vocabulary. Natural logarithms; entropies in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from alignkit.engine.forward.head import linear_logprobs, logits_logprobs
from alignkit.engine.forward.packable import can_pack
from alignkit.engine.forward.packed import Packed, attending, shared_batches
from alignkit.engine.forward.shortage import explained
from alignkit.engine.forward.trial import once_per_model
from alignkit.engine.observing.metering import note_pass
from alignkit.engine.tokens import Padded, TrainRow, micro_batches

if TYPE_CHECKING:
    from alignkit.protocols import Policy


def response_logprobs(
    policy: Policy,
    rows: Sequence[TrainRow],
    *,
    temperature: float = 1.0,
    with_entropy: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return log πθ(o_t | q, o_<t) of every trained token, entropies, and the mask.

    ``temperature`` divides the logits, as it did when the response was sampled; the entropies are
    the policy's own, at temperature 1. All three are (B, T); the log-probs carry the gradient, the
    entropies do not and are None unless asked for. Padding holds zeros. float32, or float64 for a
    float64 model.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    how = {"temperature": temperature, "with_entropy": with_entropy}
    with policy.autocast(), explained(policy, rows):
        packs = can_pack(policy.model) and any(row.trained_ids for row in rows)
        logprobs, entropy, mask = (_packed if packs else _padded)(policy, rows, **how)
    note_pass(policy.model, rows, logprobs, shared=packs)
    spread = _spread(entropy, mask) if with_entropy else None
    return _spread(logprobs, mask), spread, mask


def by_row(values: Tensor, mask: Tensor) -> list[Tensor]:
    """Cut (B, T) values into each row's own, (T_i,), on the CPU."""
    return [row[there].clone() for row, there in zip(values.cpu(), mask.cpu(), strict=True)]


@torch.no_grad()
def detached(
    policy: Policy,
    rows: Sequence[TrainRow],
    cut: Callable[[Sequence[TrainRow]], list[list[int]]],
    *,
    temperature: float = 1.0,
    entropies: bool = False,
) -> list[Tensor]:
    """Return the log-probs of each row's response tokens, or the entropies, (T_i,) on the CPU.

    ``cut`` parts the rows that have such tokens into the batches that are computed together.
    """
    found = [torch.zeros(0)] * len(rows)
    at = [i for i, row in enumerate(rows) if row.trained_ids]
    for batch in cut([rows[i] for i in at]):
        chosen = [rows[at[j]] for j in batch]
        logprobs, entropy, mask = response_logprobs(
            policy, chosen, temperature=temperature, with_entropy=entropies
        )
        wanted = logprobs if entropy is None else entropy
        for j, values in zip(batch, by_row(wanted, mask), strict=True):
            found[at[j]] = values
    return found


def cut(policy: Policy, rows: Sequence[TrainRow], token_budget: int) -> list[list[int]]:
    """Cut ``rows`` into the micro-batches that response_logprobs computes at least cost.

    Every index is in exactly one. ``token_budget`` caps the tokens that are computed: shared
    prompts once and no padding if the model's rows can be packed, else padding included.
    """
    with policy.autocast():  # asked for the type that it computes in
        packs = can_pack(policy.model)
    if packs:
        return shared_batches(rows, token_budget)
    return micro_batches([row.length for row in rows], token_budget)


def _padded(policy: Policy, rows: Sequence[TrainRow], **how: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probs and entropies (N,), and where they go: the mask (B, T)."""
    device = next(policy.model.parameters()).device
    batch = Padded.of(rows, policy.pad_id, device)
    row = torch.arange(len(rows), device=device)[:, None].expand_as(batch.mask)  # (B, T)
    at = (row[batch.mask], batch.positions[batch.mask])
    targets = batch.targets[batch.mask]
    return *token_logprobs(policy.model, batch.input_ids, at, targets, **how), batch.mask


def _packed(policy: Policy, rows: Sequence[TrainRow], **how: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Do as ``_padded`` does, on one row without padding."""
    device = next(policy.model.parameters()).device
    batch = Packed.of(rows, device)
    at = (torch.zeros_like(batch.positions), batch.positions)
    targets = torch.tensor([i for row in rows for i in row.trained_ids], device=device)
    size = torch.tensor([len(row.trained_ids) for row in rows], device=device)  # (B,)
    mask = torch.arange(int(size.max()), device=device) < size[:, None]  # (B, T)
    has_linear_head(policy.model)  # it tries the model out, which must not happen below
    with attending(policy.model, batch.blocks):
        found = token_logprobs(
            policy.model, batch.input_ids, at, targets, position_ids=batch.position_ids, **how
        )
    return *found, mask


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
    are 0, 1, 2 … unless given. The entropies, (N,) too, carry no gradient and are zeros unless
    asked for.
    """
    inputs: dict[str, Any] = {"input_ids": input_ids, "use_cache": False}
    if position_ids is not None:
        inputs["position_ids"] = position_ids
    if has_linear_head(model):
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
    logits = _full_logits(model, input_ids)[at]  # (N, V)
    return logits_logprobs(logits, targets, temperature=temperature)


def _full_logits(model: nn.Module, input_ids: Tensor) -> Tensor:
    """Return (B, L, V); a model that is not of transformers is given the ids and nothing else."""
    options = {"use_cache": False} if hasattr(model, "generation_config") else {}
    logits: Tensor = model(input_ids=input_ids, **options).logits
    return logits


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    """Put (N,) values where the (B, T) mask is True, zeros elsewhere; differentiable."""
    zeros = torch.zeros(mask.shape, dtype=values.dtype, device=values.device)
    return zeros.masked_scatter(mask, values)


# ---------------------------------------------------------------- which models qualify


@once_per_model
@torch.no_grad()
def has_linear_head(model: nn.Module) -> bool:
    """Tell whether the model's logits are a linear map of its decoder's last hidden state.

    Four tokens run with large made-up logits in the head's place, and both ends must come
    through: the head is given the decoder's last hidden state, and the model returns what the
    head gave. Large, because soft-capping hardly shows on a fresh model's small logits. A model
    whose logits are soft-capped, scaled or otherwise unusual computes them in full.
    """
    head, decoder = _head(model), _decoder(model)
    if not isinstance(head, nn.Linear) or decoder is None:
        return False
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
    """Compare values whatever the dtypes, to the rounding of the coarser one."""
    return torch.allclose(a.double(), b.double(), rtol=1e-2, atol=1e-6)


def _head(model: nn.Module) -> Any:
    find = getattr(model, "get_output_embeddings", None)
    return find() if find else None


def _decoder(model: nn.Module) -> Any:
    find = getattr(model, "get_decoder", None)
    return find() if find else None
