"""Decoding steps of the usual decoder on a CPU, written out with as few operations as possible.

One token per row is little work per operation, so what surrounds the matrix products of a
general implementation costs as much as they do. Llama, Qwen, Mistral and many others are one
model: root-mean-square norms, grouped-query attention with rotary positions, a gated SiLU
network. A model with just these parts is run here; the probe at start compares it with the
model's own forward, and any other model, or one that answers differently, keeps its own.

Queries and keys are rotated as complex numbers, one operation in place: the outputs that make a
pair are brought side by side in the weights themselves, and so the cache holds them. The scale of
the scores is in the weights of the queries.

Shapes: B = rows, H = hidden size, N = query heads, K = key-value heads, D = head size,
V = vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from alignkit_hf.fast.products import Joined, Product, joining

if TYPE_CHECKING:
    from collections.abc import Callable

    from alignkit_hf.fast.cache import RowCache

_BLOCK = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_HEAD_NORMS = {"q_norm", "k_norm"}
_NETWORK = {"gate_proj", "up_proj", "down_proj", "act_fn"}


@dataclass(slots=True)
class _Layer:
    norm: Callable[[Tensor], Tensor]
    qkv: Product
    """(B, H) to (B, N + 2 K, D) once viewed: scaled queries, keys, values."""
    head_norms: tuple[Callable[[Tensor], Tensor], ...]
    """Those of the queries and the keys, or none."""
    out: Product
    second_norm: Callable[[Tensor], Tensor]
    gate: Product
    up: Product
    down: Product


class Fused:
    """A snapshot of a model's weights that decodes; make a new one when they change."""

    def __init__(self, model: Any) -> None:
        """``model`` must be one that :func:`is_usual` accepts."""
        base = model.base_model
        config = model.config.get_text_config()
        self.embed: nn.Embedding = base.embed_tokens
        self.rotary = base.rotary_emb
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        first = base.layers[0].self_attn
        self.order = _paired(first.q_proj.out_features // self.heads, first.q_proj.weight.device)
        head = model.get_output_embeddings()
        join = joining([*base.layers.parameters(), *head.parameters()])
        self.layers = [self._layer(layer, join) for layer in base.layers]
        self.norm = _norm(base.norm)
        self.head = join(Joined([head]))
        self.turns = torch.empty(0, 1, 0)
        """(positions, 1, D / 2), complex."""

    def keys(self, keys: Tensor) -> Tensor:
        """Return the model's own keys (..., D) as they are held here."""
        return keys[..., self.order]

    def step(self, tokens: Tensor, positions: Tensor, cache: RowCache) -> Tensor:
        """Return next-token logits (B, V) for tokens (B,) at positions (B,).

        ``cache`` has been pointed at where their keys and values go, and attends.
        """
        rows = len(tokens)
        x = self.embed(tokens)  # (B, H)
        turn = self._turn(positions)
        for index, layer in enumerate(self.layers):
            qkv = layer.qkv(layer.norm(x)).view(rows, self.heads + 2 * self.kv_heads, -1)
            self._rotate(layer, qkv, turn)
            seen = cache.attend(index, qkv, self.heads)  # (B, N, D)
            x = layer.out.plus(seen.flatten(1), x)
            y = layer.second_norm(x)
            x = layer.down.plus(layer.up.times(y, layer.gate.silu(y)), x)
        return self.head(self.norm(x))

    def _turn(self, positions: Tensor) -> Tensor:
        """Return the rotation at positions (B,), (B, 1, D / 2) complex; from a table that grows."""
        last = int(positions.max())
        if last >= len(self.turns):
            table = torch.arange(2 * last + 64, device=positions.device)[None]
            like = torch.empty(0, device=positions.device)
            cos, sin = (x[0, :, None, : x.shape[-1] // 2] for x in self.rotary(like, table))
            self.turns = torch.complex(cos, sin)
        return self.turns[positions]

    def _rotate(self, layer: _Layer, qkv: Tensor, turn: Tensor) -> None:
        """Norm, where the model does, and rotate queries and keys of ``qkv`` in place.

        Su et al. 2021, arXiv:2104.09864, eq. 12 and 13.
        """
        turned = self.heads + self.kv_heads
        parts = slice(self.heads), slice(self.heads, turned)
        for norm, part in zip(layer.head_norms, parts, strict=False):
            qkv[:, part] = norm(qkv[:, part])
        qk = qkv[:, :turned]
        wide = qk.to(_wide(qk))
        torch.view_as_complex(wide.view(*wide.shape[:-1], -1, 2)).mul_(turn)
        if wide is not qk:
            qk.copy_(wide)

    def _layer(self, layer: Any, join: Callable[[Joined], Product]) -> _Layer:
        attention, network = layer.self_attn, layer.mlp
        normed = hasattr(attention, "q_norm")
        scale = float(attention.scaling)
        order, factor = self._places(scale=1.0 if normed else scale)
        return _Layer(
            norm=_norm(layer.input_layernorm),
            qkv=join(Joined([attention.q_proj, attention.k_proj, attention.v_proj], order, factor)),
            head_norms=(
                (_norm(attention.q_norm, self.order, scale), _norm(attention.k_norm, self.order))
                if normed
                else ()
            ),
            out=join(Joined([attention.o_proj])),
            second_norm=_norm(layer.post_attention_layernorm),
            gate=join(Joined([network.gate_proj])),
            up=join(Joined([network.up_proj])),
            down=join(Joined([network.down_proj])),
        )

    def _places(self, scale: float) -> tuple[Tensor, Tensor]:
        """Return for each output of queries, keys and values where it comes from and its factor."""
        heads, size = self.heads + 2 * self.kv_heads, len(self.order)
        straight = torch.arange(heads * size, device=self.order.device).view(heads, size)
        factor = torch.ones(heads, size, device=self.order.device)
        factor[: self.heads] = scale
        turned = self.heads + self.kv_heads
        order = torch.cat([straight[:turned, self.order], straight[turned:]])
        return order.flatten(), factor.flatten()


def is_usual(model: Any) -> bool:
    """Whether ``model`` has the parts of the usual decoder, all unmodified, and nothing else."""
    base, head = model.base_model, model.get_output_embeddings()
    if base is model or type(head) is not nn.Linear:
        return False
    if not all(hasattr(base, name) for name in ("embed_tokens", "layers", "norm", "rotary_emb")):
        return False
    parameters = list(model.parameters())
    return (
        type(base.embed_tokens) is nn.Embedding
        and all(type(p) is nn.Parameter for p in parameters)  # neither sharded nor quantised
        and len({(p.dtype, p.device) for p in parameters}) == 1
        and all(_is_usual_layer(layer) for layer in base.layers)
        and _is_norm(base.norm)
        and _turns_by_position(base)
        and not any(map(_is_patched, model.modules()))
    )


def _is_usual_layer(layer: nn.Module) -> bool:
    parts = dict(layer.named_children())
    if set(parts) != _BLOCK:
        return False
    attention = dict(parts["self_attn"].named_children())
    network = dict(parts["mlp"].named_children())
    more = set(attention) - _ATTENTION
    if set(network) != _NETWORK or not set(attention) >= _ATTENTION or more - _HEAD_NORMS:
        return False
    linear = [attention[name] for name in _ATTENTION]
    linear += [network[name] for name in _NETWORK - {"act_fn"}]
    norms = [parts["input_layernorm"], parts["post_attention_layernorm"]]
    norms += [attention[name] for name in more]
    return (
        all(type(part) is nn.Linear for part in linear)
        and all(_is_norm(part) for part in norms)
        and "silu" in type(network["act_fn"]).__name__.lower()
        and hasattr(parts["self_attn"], "scaling")
    )


def _turns_by_position(base: Any) -> bool:
    """Whether each pair turns by an angle of its own that depends on the position alone."""
    rotary = base.rotary_emb
    frequencies = getattr(rotary, "inv_freq", None)
    size = getattr(base.layers[0].self_attn, "head_dim", 0)
    fixed = getattr(rotary, "rope_type", "") in ("default", "linear", "llama3", "yarn")
    return fixed and isinstance(frequencies, Tensor) and 2 * len(frequencies) == size


def _is_patched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")


def _norm(
    module: Any, order: Tensor | None = None, scale: float = 1.0
) -> Callable[[Tensor], Tensor]:
    """Return a root-mean-square norm, its elements in ``order``, times ``scale``.

    Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4.
    """
    weight = module.weight.detach()
    weight = weight if order is None else weight[order]
    size = len(weight)
    weight = weight * (scale * size**0.5)
    least = torch.tensor((size * module.variance_epsilon) ** 0.5, device=weight.device)

    def norm(x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=_wide(x))
        return (x / torch.hypot(length, least)).mul_(weight).to(x.dtype)

    return norm


def _wide(x: Tensor) -> torch.dtype:
    """Return the type norms and rotations are computed in: float32 at least, as models do."""
    return torch.promote_types(x.dtype, torch.float32)


def _paired(size: int, device: torch.device) -> Tensor:
    """Return the order that brings the pairs of a head, half of it apart, side by side.

    >>> _paired(6, torch.device("cpu")).tolist()
    [0, 3, 1, 4, 2, 5]
    """
    return torch.arange(size, device=device).view(2, -1).T.flatten()
