"""From hidden states through a (V, H) output head to log-probabilities and entropies.

Logits are computed a tile at a time (some rows by part of the vocabulary), and each tile is reduced
at once to a few sums a row, as in cut cross-entropy (Wijmans et al. 2024, arXiv:2411.09009,
section 4). The backward pass computes the tiles again instead of keeping them, unless there is only
one, so the memory of the head does not grow with the batch. On a CPU a tile is small enough to stay
in the processor's cache while its sums are computed; on CUDA it spans the vocabulary.

Shapes: N = rows, n = rows of a tile, H = hidden size, V = vocabulary, v = vocabulary of a tile.
Natural logarithms; entropies in nats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from alignkit.engine.forward import compiled_head
from alignkit.engine.forward.compiled_head import CompiledLogprobs, add_product
from alignkit.footprint import TILE

_KEPT_BYTES = {"cpu": 2**24, "cuda": TILE}
"""Logits of up to so many bytes are one tile; on CUDA this is also the size of several tiles."""

_TILE = 512, 2048
"""Rows and vocabulary of a tile on a CPU."""

_LEAST_ROWS = 128
"""Fewest rows of a tile on CUDA, since each tile reads the whole weight matrix."""


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
    are (N,), float32 or float64. The entropy is that at temperature 1, the model's own; it carries
    no gradient (zeros if not asked for).
    """
    device = hidden.device.type
    compute = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    compute = compute or hidden.dtype
    if bias is None and (kernels := compiled_head.kernels()):
        through = cast(Callable[..., tuple[Tensor, Tensor]], CompiledLogprobs.apply)
        return through(hidden, weight, targets, temperature, compute, kernels)
    apply = cast(Callable[..., tuple[Tensor, Tensor]], _LinearLogprobs.apply)
    return apply(hidden, weight, bias, targets, temperature, with_entropy, compute)


class _LinearLogprobs(torch.autograd.Function):
    """Tiled log-softmax of a linear map at one index per row; see linear_logprobs."""

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
        sums = _Sums.of(hidden.new_empty(0, dtype=wide), len(hidden))
        own = None  # sums over the logits at temperature 1, for the entropy
        if with_entropy and temperature != 1.0:
            own = _Sums.of(hidden.new_empty(0, dtype=wide), len(hidden))
        blocks, parts = _tiles(hidden, weight)
        keep = len(blocks) == len(parts) == 1 and any(ctx.needs_input_grad)
        powers = None
        for block in blocks:
            layer = _Block.of(weight, bias, block, compute)
            for part in parts:
                places = targets[part] - block.start
                logits = layer.logits(hidden[part], temperature)
                if own is not None:
                    own.add(part, logits * temperature, places, with_entropy=True)
                powers = sums.add(part, logits, places, with_entropy and own is None)
        log_z = sums.log_z()
        kept = powers.div_(sums.total[:, None]) if keep and powers is not None else None
        ctx.save_for_backward(hidden, weight, bias, targets, log_z, kept)
        ctx.temperature, ctx.compute = temperature, compute
        entropy = (own or sums).entropy() if with_entropy else torch.zeros_like(log_z)
        ctx.mark_non_differentiable(entropy)
        return sums.chosen - log_z, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
        hidden, weight, bias, targets, log_z, kept = ctx.saved_tensors
        want_h, want_w, want_b = ctx.needs_input_grad[:3]
        grad_hidden = torch.zeros_like(hidden, dtype=log_z.dtype) if want_h else None
        grad_weight = torch.zeros_like(weight) if want_w else None
        grad_bias = torch.zeros_like(bias) if bias is not None and want_b else None
        blocks, parts = _tiles(hidden, weight)
        scale = grad / ctx.temperature  # (N,)
        for block in blocks:
            layer = _Block.of(weight, bias, block, ctx.compute)
            for part in parts:
                if kept is None:
                    logits = layer.logits(hidden[part], ctx.temperature)
                    p = logits.sub_(log_z[part, None]).exp_()  # (n, v)
                else:
                    p = kept.clone()
                places = targets[part] - block.start
                delta = _delta(p, places, scale[part])
                if grad_bias is not None:
                    grad_bias[block] += delta.sum(0)
                delta = delta.to(ctx.compute)
                if grad_hidden is not None:
                    add_product(grad_hidden[part], delta, layer.weight)
                if grad_weight is not None:
                    add_product(grad_weight[block], delta.T, hidden[part].to(ctx.compute))
        grad_hidden = None if grad_hidden is None else grad_hidden.to(hidden.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


@dataclass(frozen=True, slots=True)
class _Block:
    """Part of the vocabulary."""

    weight: Tensor
    """(v, H)."""
    bias: Tensor | None
    """(v,)."""

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, part: slice, compute: torch.dtype) -> Self:
        """Take ``part`` of the whole head's weight (V, H) and bias (V,)."""
        return cls(weight[part].to(compute), None if bias is None else bias[part])

    def logits(self, hidden: Tensor, temperature: float) -> Tensor:
        """Return (n, v) logits / temperature, in at least float32; the caller may overwrite them.

        On CUDA they are never rounded to 16 bits on the way.
        """
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        hidden = hidden.to(self.weight.dtype)
        if hidden.device.type == "cuda" and hidden.dtype != wide:
            logits = torch.mm(hidden, self.weight.T, out_dtype=wide)
        else:
            logits = (hidden @ self.weight.T).to(wide)
        if self.bias is not None:  # finite: see _Sums.add
            logits.add_(self.bias).clamp_(min=torch.finfo(logits.dtype).min)
        return logits.div_(temperature) if temperature != 1.0 else logits


@dataclass(slots=True)
class _Sums:
    """Running sums over the logits l of each row seen so far; each (N,)."""

    chosen: Tensor
    """The target's l."""
    most: Tensor
    """m, the largest l."""
    total: Tensor
    """The sum of exp(l - m)."""
    weighted: Tensor
    """The sum of exp(l - m) (l - m)."""

    @classmethod
    def of(cls, like: Tensor, rows: int) -> Self:
        """Return the sums over no logits yet, for ``rows`` rows, of ``like``'s type and device."""
        zeros = [like.new_zeros(rows) for _ in range(3)]
        lowest = torch.finfo(like.dtype).min / 4  # not -inf, whose product with 0 is NaN
        return cls(zeros[0], like.new_full((rows,), lowest), zeros[1], zeros[2])

    def add(self, part: slice, logits: Tensor, places: Tensor, with_entropy: bool) -> Tensor:
        """Add a tile's ``logits`` (n, v), which are overwritten; return its exp(l - m).

        ``places`` (n,) are the targets' columns, counted from the tile's first; a target in another
        tile is negative or too large.
        """
        inside = _inside(places, logits)
        at = places.clamp(0, logits.shape[1] - 1)[:, None]
        found = logits.gather(-1, at)[:, 0]
        self.chosen[part] = torch.where(inside, found, self.chosen[part])
        most = torch.maximum(self.most[part], logits.amax(-1))
        sunk = self.most[part] - most
        shrink = sunk.exp()
        logits.sub_(most[:, None])
        powers = logits.exp() if with_entropy else logits.exp_()
        if with_entropy:
            before = (self.weighted[part] + sunk * self.total[part]) * shrink
            self.weighted[part] = before + torch.linalg.vecdot(powers, logits)
        self.total[part] = self.total[part] * shrink + powers.sum(-1)
        self.most[part] = most
        return powers

    def log_z(self) -> Tensor:
        """Return the logarithm of the sum of exp(l)."""
        return self.most + self.total.log()

    def entropy(self) -> Tensor:
        """Return log Z - E[l]."""
        return self.total.log() - self.weighted / self.total


def _tiles(hidden: Tensor, weight: Tensor) -> tuple[list[slice], list[slice]]:
    """Cut the vocabulary and the rows into slices; each pair of them is a tile of the logits."""
    rows, size, device = len(hidden), len(weight), hidden.device.type
    limit = _KEPT_BYTES.get(device, _KEPT_BYTES["cpu"]) // 4
    n, v = max(_LEAST_ROWS, limit // size), size
    if rows * size <= limit:
        n = rows
    elif device == "cpu":
        n, v = _TILE
    return _slices(size, v), _slices(rows, n)


def _slices(length: int, size: int) -> list[slice]:
    return [slice(i, min(i + size, length)) for i in range(0, length, max(size, 1))]


def _delta(p: Tensor, places: Tensor, scale: Tensor) -> Tensor:
    """Return d loss / d logits (n, v) for probabilities ``p``, which are overwritten.

    d logp / d logits = onehot(target) - softmax. ``scale`` (n,) is d loss / d log-prob, already
    divided by the temperature. Targets outside the tile change nothing. No shape depends on data,
    so that the host does not wait for a CUDA device.
    """
    inside = _inside(places, p)[:, None]
    at = places.clamp(0, p.shape[1] - 1)[:, None]  # a target outside: any column, left as it is
    delta = p.mul_(-scale[:, None])
    old = delta.gather(1, at)
    return delta.scatter_(1, at, torch.where(inside, old + scale[:, None], old))


def _inside(places: Tensor, tile: Tensor) -> Tensor:
    """Whether each of ``places`` (n,) is one of the columns of ``tile`` (n, v)."""
    return (places >= 0) & (places < tile.shape[1])


def logits_logprobs(
    logits: Tensor, targets: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return log softmax(logits / temperature) at ``targets`` and the entropy at temperature 1.

    ``logits`` (..., V) and ``targets`` (...) int64; both results are shaped as ``targets``. The
    entropy is detached.
    """
    own = logits.to(torch.promote_types(logits.dtype, torch.float32))
    wide = own / temperature
    logprobs = wide.gather(-1, targets[..., None])[..., 0] - torch.logsumexp(wide, -1)
    with torch.no_grad():
        entropy = entropy_from_logits(own)
    return logprobs, entropy


def entropy_from_logits(logits: Tensor) -> Tensor:
    """Return the entropy in nats of softmax(logits): (..., V) to (...). Differentiable.

    Logits of -inf count as impossible and contribute nothing.
    """
    log_p = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), -1)
    return -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0)).sum(-1)
