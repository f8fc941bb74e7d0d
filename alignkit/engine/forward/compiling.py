"""Layers and the output head compiled into few kernels, where a policy asks for it.

A layer's elementwise operations (norms, rotations, the gate, residuals, casts of autocast) take as
long on a GPU as its matrix products if each operation is a kernel of its own. torch.compile (Ansel
et al. 2024, ASPLOS, doi 10.1145/3620665.3640366) fuses them. It was chosen over liger-kernel
because it takes the layers of any architecture as they are, replaces no class of transformers for
the whole process, and compiles the same source for a CPU, where tests compare values and gradients.

Attention is not compiled: each layer is compiled in two parts, before and after it. The plain
layers are used if the compiled ones fail, or if their log-probs or gradients differ by more than
the rounding of the type the model computes in; ``REASONS`` says why.

Only passes that compute log-probs are compiled, not decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from alignkit.engine.forward import packable, passes
from alignkit.engine.forward.compiled_head import ACTIVE, OPTIONS
from alignkit.engine.forward.trial import compute_dtype, once_per_model
from alignkit.engine.observing.silence import silenced
from alignkit.engine.ranks.shards import layers_of, shards_of
from alignkit.engine.tokens import TrainRow

if TYPE_CHECKING:
    from alignkit.protocols import Policy

COMPILED = "compiled"
"""The key of compiled passes in ``packable.REASONS``."""

ASKED: WeakSet[nn.Module] = WeakSet()
"""Models whose layers are to be compiled."""

_CALLS: WeakKeyDictionary[nn.Module, Mapping[nn.Module, Callable[..., Any]]] = WeakKeyDictionary()
"""The compiled call of each layer, for each model; compiled once."""

_FAR = {torch.float64: (1e-6, 1e-6), torch.float32: (1e-4, 1e-3)}
_FAR_IN_16_BITS = 0.02, 0.3
"""Largest difference of log-probs and of their gradient, as a share of the norm of each.

Norm layers compute in float32 in a float64 model too. In 16 bits compiled and plain gradients are
as far from the exact one as from each other: 0.01 to 0.04 for a tiny model.
"""


def compile_layers(model: nn.Module) -> None:
    """Compile the layers of ``model`` wherever its log-probs are computed, if they are correct."""
    ASKED.add(model)


@contextmanager
def compiled(model: nn.Module) -> Iterator[None]:
    """Run the layers of ``model`` compiled while the block lasts, if asked for and correct."""
    if model not in ASKED or not compiles(model):
        yield
        return
    with running(model):
        yield


@contextmanager
def running(model: nn.Module) -> Iterator[None]:
    """Run the layers of ``model`` compiled while the block lasts."""
    calls = _calls(model)
    before = [(layer, layer._compiled_call_impl) for layer in calls]
    token = ACTIVE.set(True)
    for layer, call in calls.items():
        layer._compiled_call_impl = call
    try:
        yield
    finally:
        for layer, call_before in before:
            layer._compiled_call_impl = call_before
        ACTIVE.reset(token)


def _calls(model: nn.Module) -> Mapping[nn.Module, Callable[..., Any]]:
    if model not in _CALLS:
        _CALLS[model] = {layer: _compiled(layer) for layer in layers_of(model)}
    return _CALLS[model]


def _compiled(layer: nn.Module) -> Callable[..., Any]:
    """Return the layer's call, which is compiled for any number of tokens when it is first used."""
    call: Callable[..., Any] = torch.compile(layer._call_impl, dynamic=True, options=OPTIONS)
    return call


def chosen(policy: Policy) -> str:
    """Describe whether the policy's layers run compiled, and why not; "" if nobody asked for it."""
    model = policy.model
    if model not in ASKED:
        return ""
    with policy.autocast():
        if compiles(model):
            return "compiled, and the output head's sums"
    return f"plain, not compiled: {packable.REASONS[model][COMPILED]}"


@once_per_model
def compiles(model: nn.Module) -> bool:
    """Whether compiled layers of ``model`` give the plain ones' results; tried once per type."""
    reason = _fault(model)
    if reason:
        packable.REASONS.setdefault(model, {})[COMPILED] = reason
    return not reason


def _fault(model: nn.Module) -> str:
    """Return why layers of ``model`` do not run compiled, "" if they do."""
    if shards_of(model) is not None:
        return "its layers are cut over ranks"
    if not layers_of(model):
        return "it does not name its layers"
    packs = packable.can_pack(model)
    try:
        want = _tried(model, packs)
        with silenced("torch._dynamo"), running(model):
            got = _tried(model, packs)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - what a compiler raises, of any kind
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    limits = _FAR.get(compute_dtype(next(model.parameters())), _FAR_IN_16_BITS)
    shares = [float((a - b).norm() / b.norm()) for a, b in zip(got, want, strict=True)]
    right = all(share <= limit for share, limit in zip(shares, limits, strict=False))
    return "" if right else f"results differ from plain layers' by {max(shares):.2g}"


def _tried(model: nn.Module, packs: bool) -> list[Tensor]:
    """Return log-probs of a few rows and, if any weight is trained, a gradient."""
    rows, trained = _rows(model), any(p.requires_grad for p in model.parameters())
    with torch.set_grad_enabled(trained):
        found = passes.packed(model, rows) if packs else passes.padded(model, rows, pad_id=0)
        own = found[0].detach()
        return [own, packable.slope(model, found[0])] if trained else [own]


def _rows(model: Any) -> list[TrainRow]:
    """Return rows of made-up ids, two with one prompt."""
    vocabulary, draw = len(model.get_input_embeddings().weight), Random(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(vocabulary) for _ in range(count))

    prompts = [ids(9), ids(4)]
    return [TrainRow(prompts[i % 2], ids(count)) for i, count in enumerate((5, 9, 14, 20))]
