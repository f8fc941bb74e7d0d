"""Decoding steps of the usual decoder on a CPU, written out with as few operations as it takes.

One token per row is little work per operation, so what surrounds the matrix products of a
general implementation costs as much as they do. Llama, Qwen, Mistral and many others are one
model: root-mean-square norms, grouped-query attention with rotary positions, a gated SiLU
network. A model with just these parts is run here; the probe at start compares it with the
model's own forward, and any other model, or one that answers differently, keeps its own.

Layers of moderate size are laid out once per call the way the processor's matrix product reads
them fastest, and those that share an input are joined; larger ones are read where they are.

Shapes: B = rows, H = hidden size, N = query heads, K = key-value heads, D = head size,
V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from alignkit_hf.cache import RowCache

_PACKED_BYTES = 2**29
"""Layers up to this size are laid out anew, which takes as much memory once more."""

Map = Callable[[Tensor], Tensor]

_BLOCK = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_HEAD_NORMS = {"q_norm", "k_norm"}
_NETWORK = {"gate_proj", "up_proj", "down_proj", "act_fn"}


@dataclass(slots=True)
class _Layer:
    norm: Map
    qkv: Map
    """(B, H) to (B, N + 2 K, D) once viewed."""
    q_norm: Map | None
    k_norm: Map | None
    out: Map
    second_norm: Map
    gate_up: Map
    """(B, H) to (B, 2 x inner size)."""
    down: Map


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
        linear = _mapping([p for layer in base.layers for p in layer.parameters()])
        self.layers = [_layer(layer, linear) for layer in base.layers]
        self.norm = partial(norm, base.norm)
        head = model.get_output_embeddings()
        self.head: Map = lambda x: F.linear(x, head.weight, head.bias)
        self.scales = [float(layer.self_attn.scaling) for layer in base.layers]

    def step(self, tokens: Tensor, positions: Tensor, cache: RowCache) -> Tensor:
        """Return next-token logits (B, V) for tokens (B,) at positions (B,).

        ``cache`` has been pointed at where their keys and values go, and attends.
        """
        rows = len(tokens)
        x = self.embed(tokens)  # (B, H)
        cos, sin = self.rotary(x[:, None], positions[:, None])  # (B, 1, D) each
        sin = _signed(sin)
        turned = self.heads + self.kv_heads
        for index, layer in enumerate(self.layers):
            qkv = layer.qkv(layer.norm(x)).view(rows, turned + self.kv_heads, -1)
            qk = self._normed(layer, qkv[:, :turned])
            qk = _turned(qk, cos, sin)
            query = qk[:, : self.heads] * self.scales[index]
            seen = cache.attend(index, query, qk[:, self.heads :], qkv[:, turned:])  # (B, N, D)
            x = x + layer.out(seen.flatten(1))
            gate, up = layer.gate_up(layer.second_norm(x)).chunk(2, -1)
            x = x + layer.down(F.silu(gate).mul_(up))
        return self.head(self.norm(x))

    def _normed(self, layer: _Layer, qk: Tensor) -> Tensor:
        """Norm queries and keys (B, N + K, D) head by head, where the model does."""
        if layer.q_norm is None or layer.k_norm is None:
            return qk
        parts = layer.q_norm(qk[:, : self.heads]), layer.k_norm(qk[:, self.heads :])
        return torch.cat(parts, 1)


def is_usual(model: Any) -> bool:
    """Whether ``model`` has the parts of the usual decoder, each as it comes, and nothing else."""
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


def _is_patched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")


def norm(module: Any, x: Tensor) -> Tensor:
    """Divide ``x`` (..., H) by its root mean square and scale it; in float32, as models do.

    Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4.
    """
    wide = x.float()
    root = wide.square().mean(-1, keepdim=True).add_(module.variance_epsilon).rsqrt_()
    scaled: Tensor = (wide * root).to(x.dtype).mul_(module.weight)
    return scaled


def _signed(sin: Tensor) -> Tensor:
    """Negate the first half of the last dimension."""
    first, second = sin.chunk(2, -1)
    return torch.cat((-first, second), -1)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate ``x`` (B, heads, D) by angles with cosines and signed sines (B, 1, D).

    Su et al. 2021, arXiv:2104.09864, eq. 34, with pairs half a head apart.
    """
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def _layer(layer: Any, linear: Callable[[Sequence[nn.Linear]], Map]) -> _Layer:
    attention, network = layer.self_attn, layer.mlp
    normed = hasattr(attention, "q_norm")
    return _Layer(
        norm=partial(norm, layer.input_layernorm),
        qkv=linear([attention.q_proj, attention.k_proj, attention.v_proj]),
        q_norm=partial(norm, attention.q_norm) if normed else None,
        k_norm=partial(norm, attention.k_norm) if normed else None,
        out=linear([attention.o_proj]),
        second_norm=partial(norm, layer.post_attention_layernorm),
        gate_up=linear([network.gate_proj, network.up_proj]),
        down=linear([network.down_proj]),
    )


def _mapping(parameters: Sequence[Tensor]) -> Callable[[Sequence[nn.Linear]], Map]:
    """Choose how products with the weights are computed: see the module's head."""
    first = parameters[0]
    small = sum(p.numel() for p in parameters) * first.element_size() <= _PACKED_BYTES
    packs = first.device.type == "cpu" and first.dtype == torch.float32
    return _packed if small and packs and torch._C._has_mkldnn else _apart


def _apart(parts: Sequence[nn.Linear]) -> Map:
    if len(parts) == 1:
        part = parts[0]
        return lambda x: F.linear(x, part.weight, part.bias)
    return lambda x: torch.cat([F.linear(x, p.weight, p.bias) for p in parts], -1)


def _packed(parts: Sequence[nn.Linear]) -> Map:
    weight = torch.cat([p.weight.detach() for p in parts])  # (out, in)
    biases = [
        p.weight.new_zeros(p.out_features) if p.bias is None else p.bias.detach() for p in parts
    ]
    bias = torch.cat(biases) if any(p.bias is not None for p in parts) else None
    operations = cast(Any, torch.ops.mkldnn)
    packed = operations._reorder_linear_weight(weight)
    product = operations._linear_pointwise
    return lambda x: product(x, packed, bias, "none", [], "")
