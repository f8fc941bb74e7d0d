"""Log-probabilities and entropies of response tokens, without the (B, T, V) logits.

The output head is a (V, H) matrix. It is applied to the hidden states of response tokens
only, some hundred at a time, and each chunk of logits is reduced at once to two numbers a
token. The backward pass computes the chunks again instead of keeping them (a single chunk
is kept), so the memory of the head does not grow with the batch.

Shapes: B = rows, T = response tokens of the longest row, N = response tokens of all rows,
H = hidden size, V = vocabulary. Natural logarithms; entropies in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from alignkit.engine.forward.packable import can_pack
from alignkit.engine.forward.packed import Packed, attending, shared_batches
from alignkit.engine.forward.shortage import explained
from alignkit.engine.observing.metering import note_pass
from alignkit.engine.tokens import Padded, TrainRow, micro_batches

if TYPE_CHECKING:
    from alignkit.protocols import Policy

_CHUNK_BYTES = {"cpu": 2**24, "cuda": 2**29}
_CHUNK_ROWS = 128
"""A chunk of logits fills so many bytes, but takes at least so many rows: each chunk also
passes over the whole (V, H) matrix, and with a large vocabulary few rows make that the cost
(measured at V = 151,936 on CPU: 27 rows a chunk took 2.4 times as long backwards as 441)."""


def response_logprobs(
    policy: Policy,
    rows: Sequence[TrainRow],
    *,
    temperature: float = 1.0,
    with_entropy: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return log πθ(o_t | q, o_<t) of every response token, entropies, and the mask.

    ``temperature`` divides the logits, as it did when the response was sampled. All three are
    (B, T); the log-probs carry the gradient, the entropies do not and are None unless asked
    for. Padding holds zeros. float32, or float64 for a float64 model.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    how = {"temperature": temperature, "with_entropy": with_entropy}
    with policy.autocast(), explained(policy, rows):
        packs = can_pack(policy.model) and any(row.response_ids for row in rows)
        logprobs, entropy, mask = (_packed if packs else _padded)(policy, rows, **how)
    note_pass(policy.model, rows, logprobs, shared=packs)
    spread = _spread(entropy, mask) if with_entropy else None
    return _spread(logprobs, mask), spread, mask


def cut(policy: Policy, rows: Sequence[TrainRow], token_budget: int) -> list[list[int]]:
    """Cut ``rows`` into the micro-batches that response_logprobs computes at least cost.

    Every index is in exactly one. ``token_budget`` caps the tokens that are computed: shared
    prompts once and no padding if the model's rows can be packed, else padding included.
    """
    if can_pack(policy.model):
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
    targets = torch.tensor([i for row in rows for i in row.response_ids], device=device)
    size = torch.tensor([len(row.response_ids) for row in rows], device=device)  # (B,)
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


# ---------------------------------------------------------------- the head


def linear_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    with_entropy: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return log softmax(hidden @ weight.T / temperature) at ``targets``, and the entropy.

    ``hidden`` (N, H), ``weight`` (V, H), ``bias`` (V,), ``targets`` (N,) int64; both results
    are (N,), float32 or float64. The entropy carries no gradient (zeros if not asked for).
    """
    device = hidden.device.type
    compute = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    compute = compute or hidden.dtype
    apply = cast(Callable[..., tuple[Tensor, Tensor]], _LinearLogprobs.apply)
    return apply(hidden, weight, bias, targets, temperature, with_entropy, compute)


class _LinearLogprobs(torch.autograd.Function):
    """Chunked log-softmax of a linear map at one index per row; see linear_logprobs."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        with_entropy: bool,
        compute: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(compute, torch.float32)
        logprobs, entropy, log_z = hidden.new_zeros((3, len(hidden)), dtype=wide)
        w = weight.to(compute)
        chunks = _chunks(hidden, weight)
        keep = len(chunks) == 1 and any(ctx.needs_input_grad)
        p = None
        for part in chunks:
            logits = _logits(hidden[part], w, bias, temperature)  # (n, V)
            log_z[part] = torch.logsumexp(logits, -1)
            logprobs[part] = logits.gather(-1, targets[part, None])[:, 0] - log_z[part]
            if with_entropy or keep:
                p = logits.sub_(log_z[part, None]).exp_()  # (n, V)
            if p is not None and with_entropy:
                entropy[part] = torch.special.entr(p).sum(-1)
        ctx.save_for_backward(hidden, weight, bias, targets, log_z, p if keep else None)
        ctx.temperature, ctx.compute = temperature, compute
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
        hidden, weight, bias, targets, log_z, kept = ctx.saved_tensors
        want_h, want_w, want_b = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if want_h else None
        grad_weight = torch.zeros_like(weight) if want_w else None
        grad_bias = torch.zeros_like(bias) if bias is not None and want_b else None
        w = weight.to(ctx.compute)
        for part in _chunks(hidden, weight):
            if kept is None:
                p = _logits(hidden[part], w, bias, ctx.temperature)  # (n, V)
                p = p.sub_(log_z[part, None]).exp_()
            else:
                p = kept
            # d logp / d logits = (onehot(target) - softmax) / temperature.
            scale = grad[part, None] / ctx.temperature  # (n, 1)
            delta = (p * -scale).scatter_add_(-1, targets[part, None], scale)  # (n, V)
            if grad_bias is not None:
                grad_bias += delta.sum(0)
            delta = delta.to(ctx.compute)
            if grad_hidden is not None:
                grad_hidden[part] = delta @ w
            if grad_weight is not None:
                _add_product(grad_weight, delta, hidden[part].to(ctx.compute))
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


def _chunks(hidden: Tensor, weight: Tensor) -> list[slice]:
    """Cut N rows into chunks whose logits fill about the device's share of memory."""
    limit = _CHUNK_BYTES.get(hidden.device.type, _CHUNK_BYTES["cpu"])
    size = max(_CHUNK_ROWS, limit // (4 * len(weight)))
    return [slice(i, i + size) for i in range(0, len(hidden), size)]


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    """Return (n, V) logits over the temperature, in at least float32; safe to overwrite."""
    logits = hidden.to(weight.dtype) @ weight.T
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if bias is not None:
        logits += bias
    return logits.div_(temperature) if temperature != 1.0 else logits


def _add_product(total: Tensor, delta: Tensor, hidden: Tensor) -> None:
    """Add delta.T @ hidden, (n, V) and (n, H), to the (V, H) total, without a copy if it can."""
    if total.dtype == delta.dtype:
        total.addmm_(delta.T, hidden)
    else:
        total += delta.T @ hidden


def logits_logprobs(
    logits: Tensor, targets: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return log softmax(logits / temperature) at ``targets`` and the detached entropy.

    ``logits`` (..., V) and ``targets`` (...) int64; both results are shaped as ``targets``.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    logprobs = wide.gather(-1, targets[..., None])[..., 0] - torch.logsumexp(wide, -1)
    with torch.no_grad():
        entropy = entropy_from_logits(wide)
    return logprobs, entropy


def entropy_from_logits(logits: Tensor) -> Tensor:
    """Return the entropy in nats of softmax(logits): (..., V) to (...). Differentiable.

    Logits of -inf count as impossible and contribute nothing.
    """
    log_p = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), -1)
    return -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0)).sum(-1)


# ---------------------------------------------------------------- which models qualify

_linear: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def has_linear_head(model: nn.Module) -> bool:
    """Tell whether the model's logits are a linear map of its decoder's last hidden state.

    Asked of the model itself, once: soft-capped, scaled or otherwise unusual heads show, and
    such a model computes its logits in full.
    """
    if model not in _linear:
        _linear[model] = _probe(model)
    return _linear[model]


@torch.no_grad()
def _probe(model: nn.Module) -> bool:
    """Run four tokens with large made-up logits in the head's place: do both ends come through?

    The head must be given the decoder's last hidden state, and the model must return what the
    head gave. Large, because soft-capping hardly shows on a fresh model's small logits.
    """
    head, decoder = _head(model), _decoder(model)
    if not isinstance(head, nn.Linear) or decoder is None:
        return False
    seen: list[Tensor] = []

    def replace(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.extend(args)
        return torch.linspace(-100, 100, output.numel()).view_as(output).to(output)

    ids = torch.arange(4, device=head.weight.device)[None] % len(head.weight)
    training = [m for m in model.modules() if m.training]
    model.eval()  # dropout would make two passes differ
    hook = head.register_forward_hook(replace)
    try:
        hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state
        logits = model(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()
        for module in training:
            module.training = True
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
