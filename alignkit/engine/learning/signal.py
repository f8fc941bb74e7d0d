"""The rows a loss learns from: does it from responses whose advantage is zero?

Most only scale the advantage: such a response then adds exactly zero to the loss and to the
gradient, and need not be computed. A loss with another term, a KL penalty for one, does learn
from it. Rather than a list of losses, the loss itself is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from alignkit.engine.tokens import TrainRow
from alignkit.protocols import LossInputs, LossType

_SHAPE = (3, 4)
_SIZES = (0.1, 3.0)
"""Nats: log-probs that hardly differ, and some that are far outside any clipping range."""

METRIC_TOKENS = 256
"""Response tokens that the metrics of a step without any advantage are taken from, at least
as far as there are so many. Fixed, so that metrics do not depend on the token budget."""


class Signal:
    """Tells rows that a loss learns from and those that add exactly zero to it."""

    def __init__(self, loss: LossType) -> None:
        self._loss = loss
        self._flat: dict[frozenset[str], bool] = {}

    def rows(self, rows: Sequence[TrainRow]) -> Sequence[TrainRow]:
        """Leave out rows that add exactly zero; keep some for the metrics if all of them do."""
        chosen = [row for row in rows if row.advantage != 0]
        if len(chosen) == len(rows) or not self._needs_advantage(rows):
            return rows
        if any(row.response_ids for row in chosen):
            return chosen
        with_tokens = [row for row in rows if row.response_ids]
        before = accumulate((len(row.response_ids) for row in with_tokens), initial=0)
        return [row for row, n in zip(with_tokens, before, strict=False) if n < METRIC_TOKENS]

    def _needs_advantage(self, rows: Sequence[TrainRow]) -> bool:
        given = frozenset(
            name
            for name in ("ref_logprobs", "rollout_logprobs")
            if any(getattr(row, name) is not None for row in rows)
        )
        if given not in self._flat:
            self._flat[given] = needs_advantage(self._loss, given)
        return self._flat[given]


def needs_advantage(loss: LossType, given: Collection[str]) -> bool:
    """Whether ``loss`` is zero, and flat, wherever the advantage is zero.

    It is called with random log-probs and every advantage zero. ``given`` names the optional
    inputs it gets besides ``old_logprobs``, which it always gets. False as soon as one loss or
    one gradient is not exactly zero.
    """
    names = {"old_logprobs", *given}
    generator = torch.Generator().manual_seed(0)
    return all(_is_flat(loss, names, size, generator) for size in _SIZES)


def _is_flat(loss: LossType, given: set[str], size: float, generator: torch.Generator) -> bool:
    def draw() -> Tensor:
        return -size * torch.rand(_SHAPE, generator=generator)

    logprobs = draw().requires_grad_()
    mask = torch.ones(_SHAPE, dtype=torch.bool)
    mask[-1, 2:] = False
    with torch.enable_grad():
        output = loss(
            LossInputs(
                logprobs=logprobs,
                mask=mask,
                advantages=torch.zeros(_SHAPE[0], 1),
                **{name: draw() for name in sorted(given)},
            )
        )
        if not bool((output.per_token == 0).all()):
            return False
        if not output.per_token.requires_grad:
            return True
        (grad,) = torch.autograd.grad(
            output.per_token.sum(), logprobs, allow_unused=True, materialize_grads=True
        )
    return not bool(grad.any())
