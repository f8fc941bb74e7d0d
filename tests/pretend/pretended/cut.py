"""A layer of a Qwen2 as torch.compile cuts it: what it keeps for the backward pass, and reads.

torch traces the layer before and behind its attention, forwards and backwards at once, and its
partitioner chooses what is kept and what is computed again (min-cut, as inductor uses it). Both
graphs then run on the pretended device, an operation at a time; ``roofline`` joins what lies
between two products, ``memory`` counts what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch.aot_autograd import aot_function, make_boxed_func
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import _disable_current_modes

from pretended.roofline import PRODUCTS
from pretended.shapes import active


class Before(nn.Module):
    """What comes before attention."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.norm, attention = layer.input_layernorm, layer.self_attn
        self.q, self.k, self.v = attention.q_proj, attention.k_proj, attention.v_proj
        self.size = attention.head_dim

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        """Return queries and keys, rotated, and values without heads."""
        from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

        normed = self.norm(x)
        q, k = (
            to(normed).view(*x.shape[:-1], -1, self.size).transpose(1, 2) for to in (self.q, self.k)
        )
        return *apply_rotary_pos_emb(q, k, cos, sin), self.v(normed)


class Behind(nn.Module):
    """What comes behind attention."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.out, self.norm, self.mlp = (
            layer.self_attn.o_proj, layer.post_attention_layernorm, layer.mlp,
        )  # fmt: skip

    def forward(self, x: Tensor, attended: Tensor) -> tuple[Tensor, ...]:
        """Return the layer's output."""
        x = x + self.out(attended)
        return (x + self.mlp(self.norm(x)),)


@dataclass(frozen=True)
class Graphs:
    """What runs forwards and backwards."""

    forward: Callable[..., Sequence[Any]]
    backward: Callable[..., Sequence[Any]]
    outputs: int


class _Cut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graphs: Graphs, *inputs: Tensor) -> tuple[Tensor, ...]:
        found = graphs.forward(*inputs)
        ctx.graphs = graphs
        ctx.save_for_backward(*found[graphs.outputs :])
        return tuple(found[: graphs.outputs])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return None, *ctx.graphs.backward(*ctx.saved_tensors, *grads)


_TRACED: dict[Any, Graphs] = {}


def run(module: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Return what ``module`` does, by the graphs of these shapes and types."""
    weights = dict(module.named_parameters())
    given = [*weights.values(), *inputs]
    cast = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    key = type(module), cast, *((tuple(x.shape), x.dtype, x.requires_grad) for x in given)
    if key not in _TRACED:
        _TRACED[key] = _traced(module, list(weights), given, cast)
    with torch.autocast("cuda", enabled=False):
        found: tuple[Tensor, ...] = _Cut.apply(_TRACED[key], *given)
    return found


def _traced(module: nn.Module, names: list[str], given: list[Tensor], cast: Any) -> Graphs:
    from torch._inductor.decomposition import select_decomp_table

    graphs: list[Any] = []

    def keep(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return make_boxed_func(graph)

    def call(*args: Tensor) -> tuple[Tensor, ...]:
        own = dict(zip(names, args, strict=False))
        with torch.autocast("cpu", cast, enabled=cast is not None, cache_enabled=False):
            return torch.func.functional_call(module, own, args[len(names) :])

    own_saved = saved_tensors_hooks(lambda x: x, lambda x: x)  # not those of a recomputed layer
    with own_saved, _disable_current_modes(), FakeTensorMode(), torch.enable_grad():
        fake = [torch.empty_strided(x.shape, x.stride(), dtype=x.dtype) for x in given]
        for x, like in zip(fake, given, strict=True):
            x.requires_grad_(like.requires_grad)
        traced = aot_function(
            call, keep, keep, min_cut_rematerialization_partition, select_decomp_table()
        )
        found = traced(*fake)
        torch.autograd.backward(found, [torch.empty_like(x) for x in found])
    return Graphs(*map(_moved, graphs), len(found))


def _moved(graph: Any) -> Any:
    """Let a graph that was traced on the CPU make its tensors on the device, in a compiler's order.

    What lies between products is computed as late as the next product needs it, and then together
    with all else that products or the caller need and that can be computed by then: what shares
    its inputs is one kernel.
    """
    *nodes, output = graph.graph.nodes
    done = {node for node in nodes if node.op in ("placeholder", "get_attr")}
    order = [node for node in nodes if node in done]
    wanted = [n for n in nodes if any(u is output or u.target in PRODUCTS for u in n.users)]

    def take(node: Any) -> None:
        if node not in done:
            done.add(node)
            for before in node.all_input_nodes:
                take(before)
            order.append(node)

    for product in [*(n for n in nodes if n.target in PRODUCTS), output]:
        ready = _computable(nodes, done)
        for node in wanted:
            if node in ready:
                take(node)
        take(product)
    for node in order:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": torch.device("cuda:0")}
        if node is not output:
            output.prepend(node)
    graph.recompile()
    return graph


def _computable(nodes: Sequence[Any], done: set[Any]) -> set[Any]:
    """Return the nodes that need no product beyond those that are done."""
    found = set(done)
    for node in nodes:
        if node.target not in PRODUCTS and found.issuperset(node.all_input_nodes):
            found.add(node)
    return found


def cut(layer: Any) -> Callable[..., Tensor]:
    """Return a call of ``layer`` that runs as it would be compiled."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    before, behind, own = Before(layer), Behind(layer), layer.self_attn

    def call(
        x: Tensor, *, attention_mask: Any = None, position_embeddings: Any, **rest: Any
    ) -> Any:
        assert active()
        q, k, v = run(before, x, *position_embeddings)
        v = v.view(*x.shape[:-1], -1, own.head_dim).transpose(1, 2)
        attend = ALL_ATTENTION_FUNCTIONS[own.config._attn_implementation]
        found, _ = attend(own, q, k, v, attention_mask, scaling=own.scaling, sliding_window=None)
        return run(behind, x, found.reshape(*x.shape[:-1], -1))[0]

    return call
