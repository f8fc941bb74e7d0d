"""How much arithmetic learning takes, and what share of the device's peak that is.

Floating-point operations of a pass over rows, a multiply-add counted as two:

    forward   2 P n + 2 V H r + 4 L D s
    backward  2 P n + 2 P' n + twice the rest

with P weights in the layers' matrices, P' of them trained, n tokens, a (V, H) output head at r
response tokens, L layers whose queries are D wide in all, and s pairs of a query and a key it
sees. With everything trained that is 6 per weight and token, and the attention term of PaLM
(Chowdhery et al. 2022, arXiv:2204.02311, appendix B) and Megatron-LM (Narayanan et al. 2021,
arXiv:2104.04473, section 5.1). Where this counts less than they do, it is because less is done:

- s counts pairs under the causal mask only, half of theirs;
- a prompt that several rows share counts once, where it is computed once;
- the head counts at response tokens, and rows that are not computed not at all.

Layers computed a second time by gradient checkpointing do not count, as in theirs (model FLOPs,
not hardware FLOPs). Norms, embeddings, softmax and the optimizer do not either.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from alignkit.engine.ranks import here
from alignkit.engine.tokens import TrainRow
from alignkit.model_shape import ModelShape
from alignkit.protocols import Rated

if TYPE_CHECKING:
    from alignkit.protocols import Policy

_ACTIVE: ContextVar[Meter | None] = ContextVar("what counts the passes under way", default=None)

DENSE_BF16_TFLOPS = {
    "B200": 2250, "H200": 989, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "H800": 989,
    "H20": 148, "A100": 312, "A800": 312, "A40": 150, "A30": 165, "A10G": 70, "A10": 125,
    "L40S": 362, "L40": 181, "L4": 121, "RTX 4090": 165, "RTX 3090": 71, "RTX A6000": 155,
    "RTX 6000 Ada": 364, "MI300X": 1307,
}  # fmt: skip
"""Peak of dense bf16 products with float32 accumulation by part of the card's name, 10^12 FLOP/s,
from the makers' data sheets (sparsity off). The longest part that fits counts."""


@dataclass(slots=True)
class Meter:
    """Counts operations while it is active."""

    flops: float = 0.0
    tokens: int = 0
    """Prompt and response tokens of the rows that were learned from, a shared prompt in each."""

    @contextmanager
    def counting(self) -> Iterator[Meter]:
        """Count the passes this thread makes in the block."""
        token = _ACTIVE.set(self)
        try:
            yield self
        finally:
            _ACTIVE.reset(token)


def note_pass(
    model: nn.Module, rows: Sequence[TrainRow], logprobs: Tensor, *, shared: bool
) -> None:
    """Count a forward pass over ``rows``, and its backward pass when there is one.

    ``logprobs`` is its result; ``shared`` tells whether equal prompts were computed once.
    """
    meter = _ACTIVE.get()
    if meter is None or (shape := shape_of(model)) is None:
        return
    forward, backward = shape.flops(work_of(rows, shared=shared))
    meter.flops += forward

    def count(_: Tensor) -> None:
        meter.flops += backward

    if logprobs.requires_grad:
        logprobs.register_hook(count)  # type: ignore[no-untyped-call]


def note_rows(rows: Sequence[TrainRow]) -> None:
    """Count the tokens of rows that an optimizer step computes."""
    if meter := _ACTIVE.get():
        meter.tokens += sum(row.length for row in rows)


# ---------------------------------------------------------------- what a pass takes


@dataclass(frozen=True, slots=True)
class Work:
    """Sizes of a pass over some rows."""

    tokens: int
    """Inputs of the layers."""
    responses: int
    """Trained tokens: inputs of the head."""
    pairs: int
    """Query-key pairs under the causal mask."""


def work_of(rows: Sequence[TrainRow], *, shared: bool) -> Work:
    """Return the sizes of a pass; the last token of a row is predicted and no input."""
    tokens = responses = pairs = 0
    seen: set[tuple[int, ...]] = set()
    for row in rows:
        n, prompt = row.length - 1, len(row.prompt_ids)
        if not row.trained_ids:
            continue
        tokens, pairs = tokens + n, pairs + n * (n + 1) // 2
        responses += len(row.trained_ids)
        if shared and row.prompt_ids in seen:
            tokens, pairs = tokens - prompt, pairs - prompt * (prompt + 1) // 2
        seen.add(row.prompt_ids)
    return Work(tokens, responses, pairs)


@dataclass(frozen=True, slots=True)
class Shape:
    """The parts of a model that take arithmetic."""

    weights: int
    """Weights in the layers' matrices; of a mixture's experts, only those a token goes through."""
    trained: int
    head: int
    head_trained: int
    attention: int
    """Layers times the width of all queries of one."""

    def flops(self, work: Work) -> tuple[float, float]:
        """Return the operations of a forward and of a backward pass."""
        layers, head = 2.0 * work.tokens, 2.0 * work.responses
        scores = 4.0 * self.attention * work.pairs
        forward = layers * self.weights + head * self.head + scores
        backward = layers * (self.weights + self.trained) + 2 * scores
        return forward, backward + head * (self.head + self.head_trained)


_shapes: WeakKeyDictionary[nn.Module, Shape | None] = WeakKeyDictionary()


def shape_of(model: nn.Module) -> Shape | None:
    """Return the model's shape; None if its configuration does not tell the sizes."""
    if model not in _shapes:
        _shapes[model] = _shape(model)
    return _shapes[model]


def _shape(model: Any) -> Shape | None:
    sizes = ModelShape.read(getattr(model, "config", None))
    if sizes is None:
        return None
    head = model.get_output_embeddings()
    weights = trained = 0
    for module in model.modules():
        if module is head or isinstance(module, nn.Embedding):
            continue
        for parameter in module.parameters(recurse=False):
            count = _used(parameter, sizes)
            weights += count
            trained += count if parameter.requires_grad else 0
    matrix = getattr(head, "weight", None)
    top = 0 if matrix is None else matrix.numel()
    learns = matrix is not None and matrix.requires_grad
    return Shape(weights, trained, top, top if learns else 0, sizes.layers * sizes.query)


def _used(parameter: Tensor, sizes: ModelShape) -> int:
    """Return how many of a parameter's numbers multiply each token."""
    if parameter.ndim == 2:
        return parameter.numel()
    if parameter.ndim == 3:  # (experts, ., .)
        chosen = sizes.experts_per_token or len(parameter)
        return parameter.numel() * chosen // len(parameter)
    return 0


# ---------------------------------------------------------------- metrics


def throughput(meter: Meter, seconds: float, policy: Policy) -> dict[str, float]:
    """Return the metrics of speed and memory for a step's row.

    ``train/tokens_per_second`` counts ``Meter.tokens`` over ``seconds``, those of the update;
    ``train/mfu`` is the share of the device's peak, absent where the peak is not known (see
    :func:`peak_flops`). ``memory/peak_mib``: on CUDA the most memory allocated on the policy's
    device since the last call, else the most resident memory this process ever had. On several
    ranks the peak is that of the rank with the most, and ``train/mfu`` the mean of theirs.
    """
    device = next(policy.model.parameters()).device
    found = here().gather((_peak_mib(device), meter.flops))
    flops = sum(flops for _, flops in found) / len(found)
    metrics = {"memory/peak_mib": max(peak for peak, _ in found)}
    if seconds > 0 and meter.tokens:
        metrics["train/tokens_per_second"] = meter.tokens / seconds
        if (peak := peak_flops(policy, device)) and flops:
            metrics["train/mfu"] = flops / (seconds * peak)
    return metrics


def peak_flops(policy: Policy, device: torch.device) -> float | None:
    """Return the device's peak FLOP/s: as given by the policy, or else by the table."""
    said = policy.peak_tflops if isinstance(policy, Rated) else None
    if said is None and device.type == "cuda":
        said = tabled(torch.cuda.get_device_name(device))
    return None if said is None else float(said) * 1e12


def tabled(name: str, table: Mapping[str, float] = DENSE_BF16_TFLOPS) -> float | None:
    """Return the peak of the card called ``name``, None for one that is not in the table."""
    known = [part for part in table if part.lower() in name.lower()]
    return table[max(known, key=len)] if known else None


def _peak_mib(device: torch.device) -> float:
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
