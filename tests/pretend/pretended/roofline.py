"""How long an H100 would take at least: bytes over its bandwidth, operations over its speed.

Each operation of the device is one kernel that reads its inputs and writes its outputs. What it
takes is the larger of moving those bytes and of multiplying, and at least the time of a launch.
The speeds are what good kernels reach in practice, not what the data sheet promises.

Where layers are compiled, all that lies between two products of matrices is one kernel: it reads
what was made before it and writes what is still held when the next one begins. That is what a
compiler does at least; it also computes some values again instead of holding them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pretended.memory import HELD

aten = torch.ops.aten

BANDWIDTH = 2.6e12
"""Bytes a second, of 3.35e12."""
SPEED = {torch.bfloat16: 620e12, torch.float32: 45e12}
"""Operations a second in products of matrices, by the type of their inputs; of 989e12 in bf16."""
FEW, MANY, SPEED_OF_MANY = 8192, 16_384, 680e12
"""Up to so many tokens of a micro-batch ``SPEED`` holds in bf16, from so many on the third."""
ATTENTION_SPEED = 400e12
"""Operations a second in FlashAttention."""
PEAK = 989e12
"""Operations a second that the data sheet promises in bf16; the share is of these."""
LAUNCH = 2.5e-6

MULTIPLYING, ATTENTION, HEAD, LAYERS, OPTIMIZER = (
    "matrix products", "attention", "head", "layers", "optimizer",
)  # fmt: skip
"""The parts of a step; "head" and "layers" are what is computed element by element there."""

PRODUCTS = {
    aten.mm.default, aten.mm.dtype, aten.addmm.default, aten.addmm_.default, aten.addmm.dtype,
    aten.addmm.dtype_out, aten.bmm.default, aten.baddbmm.default,
}  # fmt: skip
"""Products of matrices."""
_FREE = {
    aten.detach.default, aten._unsafe_view.default, aten.empty_like.default,
    aten.empty.memory_format, aten.new_empty.default, aten.empty_strided.default,
    aten.lift_fresh.default, aten.alias.default, aten._reshape_alias.default,
    aten.new_empty_strided.default, aten._local_scalar_dense.default,
}  # fmt: skip
"""Operations that move nothing."""
_PICKED = {aten.embedding.default, aten.index.Tensor, aten.gather.default}
"""Operations that read as many values as they write, however large what they pick from is."""
_OPTIMIZER = ("_fused_adam", "_foreach")


class Spent:
    """Seconds by part of the step, and the operations of its products."""

    def __init__(self, vocabulary: int, weights: Iterable[Any], *, joined: bool) -> None:
        """Take what is as long as ``vocabulary`` in a dimension for the head's.

        Operations on tensors shaped like ``weights`` (of two dimensions) are never joined: they
        add up gradients. ``joined``: whether the others are, as layers are compiled.
        """
        self.vocabulary, self.joined = vocabulary, joined
        self.weights = {tuple(shape) for shape in weights if len(shape) > 1}
        self.waiting: dict[str, _Joined] = {}
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.kinds: defaultdict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0])
        self.operations = 0.0

    def note(self, func: Any, ins: list[Tensor], outs: list[Tensor], args: Any) -> None:
        """Count one operation with the device's tensors ``ins`` and ``outs``."""
        if func.is_view or func in _FREE or not (ins or outs):
            return
        ins = list({id(x): x for x in ins}.values())
        took, operations = _bytes(func, ins, outs) / BANDWIDTH, 0.0
        if func in PRODUCTS:
            a, b = [x for x in args if isinstance(x, Tensor)][-2:]
            operations = 2 * a.numel() * b.shape[-1]
            took = max(took, operations / self._speed(a, b))
        if "attn" in func._schema.name:
            operations = _attended(func, args)
            took = max(took, operations / ATTENTION_SPEED)
        part = self._part(func, [*ins, *outs], operations)
        self.operations += operations
        if part in (HEAD, LAYERS) and self.joined and not self._of_weights(outs):
            self.waiting.setdefault(part, _Joined()).take(func, ins, outs)
            return
        self.flush()
        self.add(part, max(took, LAUNCH), func._schema.name.removeprefix("aten::"))

    def _speed(self, a: Tensor, b: Tensor) -> float:
        """Return the operations a second of a @ b; between ``FEW`` and ``MANY`` they rise evenly.

        Tokens are the longest side but the vocabulary.
        """
        if a.dtype != torch.bfloat16:
            return SPEED[a.dtype]
        tokens = max(size for size in (*a.shape, *b.shape, 0) if size != self.vocabulary)
        share = min(max((tokens - FEW) / (MANY - FEW), 0), 1)
        return SPEED[a.dtype] + share * (SPEED_OF_MANY - SPEED[a.dtype])

    def _of_weights(self, outs: list[Tensor]) -> bool:
        return any(tuple(x.shape) in self.weights for x in outs)

    def flush(self) -> None:
        """Count the operations that wait to be joined as one kernel."""
        for part, joined in self.waiting.items():
            self.add(part, max(joined.bytes() / BANDWIDTH, LAUNCH), "joined")
        self.waiting.clear()

    def add(self, part: str, seconds: float, kind: str) -> None:
        """Add the time of one kernel."""
        self.seconds[part] += seconds
        self.kinds[part, kind][0] += 1
        self.kinds[part, kind][1] += seconds

    def _part(self, func: Any, tensors: list[Tensor], operations: float) -> str:
        name = func._schema.name
        if "attn" in name:
            return ATTENTION
        if operations:
            return MULTIPLYING
        if any(word in name for word in _OPTIMIZER):
            return OPTIMIZER
        return HEAD if any(self.vocabulary in x.shape for x in tensors) else LAYERS

    def table(self) -> str:
        """Return milliseconds by part, and the kinds of operations that take the most."""
        total = sum(self.seconds.values())
        lines = [f"{1e3 * s:8.1f} ms  {part}" for part, s in self.seconds.items()]
        lines.append(f"{1e3 * total:8.1f} ms  in all")
        most = sorted(self.kinds.items(), key=lambda item: -item[1][1])[:25]
        lines += [f"{1e3 * s:8.1f} ms {n:6.0f} x {part}: {kind}" for (part, kind), (n, s) in most]
        return "\n".join(lines)


_spent: Spent | None = None


class _Joined:
    """Operations that are one kernel."""

    def __init__(self) -> None:
        self.read: dict[tuple[int, int], int] = {}
        self.made: dict[tuple[int, int], int] = {}
        self.changed = 0

    def take(self, func: Any, ins: list[Tensor], outs: list[Tensor]) -> None:
        """Add one operation."""
        picked = func in _PICKED
        for x in ins:
            key, bytes_ = _storage(x), sum(map(size, outs)) if picked else size(x)
            if key not in self.made:
                self.read[key] = max(self.read.get(key, 0), bytes_)
        for x in outs:
            key = _storage(x)
            if key in self.read:  # in place
                self.changed += size(x)
            else:
                self.made[key] = max(self.made.get(key, 0), size(x))

    def bytes(self) -> int:
        """Return the bytes read, and those written that somebody still holds."""
        held = sum(bytes_ for key, bytes_ in self.made.items() if HELD.has(key))
        return sum(self.read.values()) + self.changed + held


def _storage(x: Any) -> tuple[int, int]:
    return HELD.name(x.held)


def _attended(func: Any, args: Any) -> float:
    """Return the operations of causal attention within the sequences, backwards 2.5 times as many.

    Dao 2023, arXiv:2307.08691, section 4.1.
    """
    tensors = [x for x in args if isinstance(x, Tensor)]
    q = tensors[0]
    edges, key_edges = (x.held.diff() for x in tensors if x.dtype == torch.int32)
    seen = (edges * (key_edges - edges) + edges * edges / 2).sum()
    backward = 2.5 if "backward" in func._schema.name else 1.0
    return float(4 * q.shape[1] * q.shape[2] * seen * backward)


@contextmanager
def counting(vocabulary: int, model: nn.Module, *, joined: bool = False) -> Iterator[Spent]:
    """Count what the device does while the block runs."""
    global _spent  # noqa: PLW0603 - there is one device
    shapes = [p.shape for p in model.parameters()]
    _spent = found = Spent(vocabulary, shapes, joined=joined)
    try:
        yield found
        found.flush()
    finally:
        _spent = None


def note(func: Any, ours: Iterable[Tensor], args: Any, found: Any, here: Any) -> None:
    """Count an operation if operations are being counted."""
    if _spent is not None:
        outs = [x for x in tree_leaves(found) if here(x)]
        _spent.note(func, list(ours), outs, tree_leaves(args))


def _bytes(func: Any, ins: list[Tensor], outs: list[Tensor]) -> float:
    if func in _PICKED:
        return 2 * sum(map(size, outs))
    if func is aten.copy_.default:
        return sum(map(size, ins))
    if func in (aten.zero_.default, aten.fill_.Scalar):
        return sum(map(size, ins))
    return sum(map(size, ins)) + sum(map(size, outs))


def size(x: Tensor) -> int:
    """Return the bytes of ``x``."""
    return x.numel() * x.element_size()
