"""Products with a layer's weights, and what directly follows them, in few operations.

A product is what ``torch.nn.functional.linear`` gives for weights laid on top of one another.
:class:`Prepacked` keeps them the way the processor's matrix product reads them fastest, which takes
the same memory again, and lets that product add, multiply or gate on its way out; :class:`Unpacked`
reads them where they are.

Shapes: B = rows, I = inputs, O = outputs, those of all the layers joined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_PACKED_BYTES = 2**29
"""Layers up to this size, together, are laid out anew."""


class Product(Protocol):
    """Weights (O, I) and, where there is one, a bias (O,)."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """Return the product y with ``x`` (B, I): (B, O)."""

    def silu(self, x: Tensor, /) -> Tensor:
        """Return y times its logistic function."""

    def plus(self, x: Tensor, other: Tensor, /) -> Tensor:
        """Return y + ``other`` (B, O)."""

    def times(self, x: Tensor, other: Tensor, /) -> Tensor:
        """Return y times ``other`` (B, O), element by element."""


@dataclass(frozen=True, slots=True)
class Joined:
    """Layers laid on top of one another: output i is that of row ``order`` [i] x ``factor`` [i]."""

    parts: Sequence[nn.Linear]
    order: Tensor | None = None
    """(O,) int64; None leaves outputs where they are."""
    factor: Tensor | None = None
    """(O,); None is all ones."""


def joining(parameters: Sequence[Tensor]) -> Callable[[Joined], Product]:
    """Choose how products with layers of these weights are computed."""
    first = parameters[0]
    small = sum(p.numel() for p in parameters) * first.element_size() <= _PACKED_BYTES
    packs = first.device.type == "cpu" and first.dtype == torch.float32
    return Prepacked if small and packs and torch._C._has_mkldnn else Unpacked


class Prepacked:
    """oneDNN's product with weights in its own layout; float32 on a CPU."""

    def __init__(self, layers: Joined) -> None:
        weight = torch.cat([part.weight.detach() for part in layers.parts])  # (O, I)
        bias = _joined_bias(layers.parts)  # (O,)
        if layers.order is not None:
            weight = weight[layers.order]
            bias = None if bias is None else bias[layers.order]
        if layers.factor is not None:
            weight = weight * layers.factor[:, None]
            bias = None if bias is None else bias * layers.factor
        operations = cast(Any, torch.ops.mkldnn)
        self._product = operations._linear_pointwise
        self._weight, self._bias = operations._reorder_linear_weight(weight), bias

    def __call__(self, x: Tensor, /) -> Tensor:
        found: Tensor = self._product(x, self._weight, self._bias, "none", [], "")
        return found

    def silu(self, x: Tensor, /) -> Tensor:
        found: Tensor = self._product(x, self._weight, self._bias, "swish", [], "")
        return found

    def plus(self, x: Tensor, other: Tensor, /) -> Tensor:
        found: Tensor = self._product.binary(x, other, self._weight, self._bias, "add")
        return found

    def times(self, x: Tensor, other: Tensor, /) -> Tensor:
        found: Tensor = self._product.binary(x, other, self._weight, self._bias, "mul")
        return found


class Unpacked:
    """torch's product with each layer's own weights, of any type and on any device."""

    def __init__(self, layers: Joined) -> None:
        self._layers = layers

    def __call__(self, x: Tensor, /) -> Tensor:
        outputs = [F.linear(x, p.weight, p.bias) for p in self._layers.parts]
        found = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
        if self._layers.order is not None:
            found = found[..., self._layers.order]
        return found if self._layers.factor is None else found.mul_(self._layers.factor)

    def silu(self, x: Tensor, /) -> Tensor:
        return F.silu(self(x), inplace=True)

    def plus(self, x: Tensor, other: Tensor, /) -> Tensor:
        return self(x).add_(other)

    def times(self, x: Tensor, other: Tensor, /) -> Tensor:
        return self(x).mul_(other)


def _joined_bias(parts: Sequence[nn.Linear]) -> Tensor | None:
    if all(p.bias is None for p in parts):
        return None
    biases = [
        p.weight.new_zeros(p.out_features) if p.bias is None else p.bias.detach() for p in parts
    ]
    return torch.cat(biases)
