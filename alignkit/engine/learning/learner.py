"""One optimizer step from a batch of rows, whatever micro-batches it is cut into.

What is done the same way for every algorithm, and why:

- Losses are divided by the counts of the whole step, so micro-batches add up to the big batch.
- Rows whose advantage is zero are not computed if the loss is zero for them (it is asked, see
  ``signal``): they count in the totals and add nothing. ``token_entropy`` and the loss's own
  metrics are means over the response tokens that are computed, and
  ``computed_token_share`` says how many of the step's that is. Where no row has an advantage, the
  first of them, of ``signal.METRIC_TOKENS`` tokens, go forward all the same, so that the metrics
  exist.
- The loss is differentiated with respect to the log-probs first. A micro-batch whose log-prob
  gradient is exactly zero is not sent through the model backwards.
- Rows without a response token reach no weight; they count in the totals and nowhere else.
- A step whose gradient is zero still steps the optimizer: momentum and weight decay act as
  they would have, had the zeros been computed.
- A loss or gradient that is not finite changes nothing: neither weights, nor optimizer, nor
  schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alignkit.engine.forward.logprobs import by_row, cut, response_logprobs
from alignkit.engine.forward.shortage import explained
from alignkit.engine.learning.inputs import loss_inputs
from alignkit.engine.learning.signal import Signal
from alignkit.engine.learning.tally import Tally
from alignkit.engine.observing.metering import note_rows
from alignkit.engine.tokens import TrainRow
from alignkit.protocols import LossType, Normalizer, Optimizer, Policy, StepTotals

if TYPE_CHECKING:
    from torch import nn

    from alignkit.engine.observing.inspector import Inspector


CPU_TOKENS = 2048
"""Micro-batches on a CPU hold at most so many tokens: more gain no speed and take memory
(measured from 512 to 6,400 on models of 0.6 and 4.5 million parameters)."""


class Learner:
    """Owns the torch optimizer and turns rows into updates of ``policy``."""

    def __init__(
        self,
        policy: Policy,
        loss: LossType,
        normalizer: Normalizer,
        optimizer: Optimizer,
        *,
        token_budget: int,
        total_steps: int,
        temperature: float = 1.0,
        inspector: Inspector | None = None,
    ) -> None:
        """Start the optimizer on the policy's trainable parameters.

        ``token_budget`` caps the tokens computed per micro-batch (on a CPU so does
        ``CPU_TOKENS``), ``total_steps`` is the length of the schedule in optimizer steps,
        ``temperature`` the one responses are sampled at. ``inspector`` gets to see each batch.
        """
        self.policy = policy
        self.loss = loss
        self.normalizer = normalizer
        on_cpu = next(policy.model.parameters()).device.type == "cpu"
        self.token_budget = min(token_budget, CPU_TOKENS) if on_cpu else token_budget
        self.temperature = temperature
        self.max_grad_norm = optimizer.max_grad_norm
        self.parameters: list[nn.Parameter] = [
            p for p in policy.model.parameters() if p.requires_grad
        ]
        self.optimizer, self.schedule = optimizer.start(self.parameters, total_steps=total_steps)
        self.inspector = inspector
        self.skipped_steps = 0
        self.skipped_in_a_row = 0
        self.pause: Callable[[], None] = lambda: None
        """Called before each micro-batch of a step; what it raises leaves the weights alone."""
        self._signal = Signal(loss)

    def logprobs(self, rows: Sequence[TrainRow]) -> list[Tensor]:
        """Return the log-probs of each row's response tokens, (T_i,) on the CPU, no gradient."""
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        with torch.no_grad():
            for batch in self._cut(rows):
                logprobs, _, mask = self._forward(batch.rows, with_entropy=False)
                for index, values in zip(batch.at, by_row(logprobs, mask), strict=True):
                    found[index] = values
        return found

    def old_logprobs(self, rows: Sequence[TrainRow]) -> list[Tensor | None]:
        """Return what ``logprobs`` does, but None for rows that updates will not compute."""
        chosen = {id(row) for row in self._signal.rows(rows)}
        found = iter(self.logprobs([row for row in rows if id(row) in chosen]))
        return [next(found) if id(row) in chosen else None for row in rows]

    def first_step(self, rows: Sequence[TrainRow]) -> tuple[dict[str, float], list[Tensor | None]]:
        """Do as ``step`` does; also return the log-probs of each row before it, on the CPU.

        They are old log-probs for later steps that cost nothing. None for rows not computed.
        """
        found: dict[int, Tensor] = {}
        metrics = self.step(rows, keep=found)
        return metrics, [found.get(id(row)) for row in rows]

    def step(
        self, rows: Sequence[TrainRow], *, keep: dict[int, Tensor] | None = None
    ) -> dict[str, float]:
        """Do one optimizer step over ``rows`` and return its metrics, without prefix.

        ``loss`` is the value of the whole step; ``token_entropy`` (nats) and the loss's own
        metrics are means over the step's response tokens, save those of rows that were not
        computed because they have no advantage; ``computed_token_share`` is the share that was.
        ``grad_norm`` is the global L2 norm before clipping, ``lr`` the rate this step used.
        ``skipped_steps`` is 1 when a loss or gradient that is not finite made the step do nothing,
        else 0. Where rows have old log-probs, ``ratio_p99`` and ``ratio_inverse_p99`` are the 99th
        percentiles of π/π_old and of its inverse over the tokens computed. ``keep`` gets the
        log-probs of each row computed, as they were before the step, under the row's ``id``.
        """
        if not rows:
            raise ValueError("an optimizer step needs at least one row")
        note_rows(rows)
        if self.inspector:
            self.inspector.before(rows)
        totals = StepTotals(len(rows), sum(len(r.response_ids) for r in rows))
        computed = self._signal.rows(rows)
        tally = Tally(sum(len(r.response_ids) for r in computed))
        for batch in self._cut(computed):
            self.pause()
            logprobs, mask = self._accumulate(batch.rows, totals, tally)
            if keep is not None:
                keep.update(zip(map(id, batch.rows), by_row(logprobs, mask), strict=True))
        lr = float(self.schedule.get_last_lr()[0])
        grad_norm, skipped = self._apply(tally.loss)
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        if skipped and self.inspector:
            times = self.skipped_in_a_row
            self.inspector.skipped(rows, times=times, loss=tally.loss, norm=grad_norm)
        return {
            "loss": tally.loss,
            "grad_norm": grad_norm,
            "lr": lr,
            "response_tokens": float(totals.tokens),
            "computed_token_share": tally.tokens / max(totals.tokens, 1),
            "skipped_steps": float(skipped),
            **tally.means(),
            **tally.ratios(),
        }

    def _cut(self, rows: Sequence[TrainRow]) -> list[_MicroBatch]:
        """Cut rows that have tokens into micro-batches, those without advantage apart."""
        batches = []
        for has_signal in (True, False):
            at = [
                i
                for i, row in enumerate(rows)
                if row.response_ids and (row.advantage != 0) is has_signal
            ]
            cuts = cut(self.policy, [rows[i] for i in at], self.token_budget)
            batches += [[at[j] for j in part] for part in cuts]
        return [_MicroBatch(at, [rows[i] for i in at]) for at in batches]

    def _forward(
        self, rows: Sequence[TrainRow], *, with_entropy: bool
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        return response_logprobs(
            self.policy, rows, temperature=self.temperature, with_entropy=with_entropy
        )

    def _accumulate(
        self, rows: Sequence[TrainRow], totals: StepTotals, tally: Tally
    ) -> tuple[Tensor, Tensor]:
        """Add the gradient of one micro-batch to ``grad``; return its log-probs and mask."""
        logprobs, entropy, mask = self._forward(rows, with_entropy=True)
        leaf = logprobs.detach().requires_grad_()  # (B, T)
        inputs = loss_inputs(rows, leaf, mask)
        if any(row.old_logprobs is not None for row in rows) and inputs.old_logprobs is not None:
            tally.compare(leaf.detach(), inputs.old_logprobs, mask)
        output = self.loss(inputs)
        if output.per_token.shape != mask.shape:
            raise ValueError(
                f"the loss returned per_token of shape {tuple(output.per_token.shape)}; it must "
                f"be that of the log-probs, {tuple(mask.shape)}"
            )
        scalar = self.normalizer(output.per_token, mask, totals=totals)
        grad = _gradient(scalar, leaf, mask)
        if bool(grad.any()):  # NaN counts as nonzero: it must reach the check in _apply
            with explained(self.policy, rows):
                logprobs.backward(grad)  # type: ignore[no-untyped-call]
        tally.add(scalar, {"token_entropy": entropy, **output.metrics}, mask)
        return leaf.detach(), mask

    def _apply(self, loss: float) -> tuple[float, bool]:
        """Clip and step, unless loss or gradient is not finite; return its norm and if skipped."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        norm = torch.nn.utils.get_total_norm(
            [p.grad for p in self.parameters if p.grad is not None]
        )
        grad_norm = float(norm)
        finite = math.isfinite(grad_norm) and math.isfinite(loss)
        if finite:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.max_grad_norm, norm)
            self.optimizer.step()
            self.schedule.step()
            self.policy.version += 1
        else:
            self.skipped_steps += 1
        self.optimizer.zero_grad(set_to_none=True)
        return grad_norm, not finite

    def state_dict(self) -> dict[str, Any]:
        """Return what resuming needs besides the weights."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "skipped_steps": self.skipped_steps,
            "skipped_in_a_row": self.skipped_in_a_row,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.skipped_steps = state["skipped_steps"]
        self.skipped_in_a_row = state["skipped_in_a_row"]


@dataclass(frozen=True, slots=True)
class _MicroBatch:
    at: list[int]
    """Indices of the rows in the step."""
    rows: list[TrainRow]


def _gradient(scalar: Tensor, leaf: Tensor, mask: Tensor) -> Tensor:
    """Return d scalar / d log-probs, (B, T), with nothing at padding."""
    if not scalar.requires_grad:
        return torch.zeros_like(leaf)
    (grad,) = torch.autograd.grad(scalar, leaf, allow_unused=True, materialize_grads=True)
    return torch.where(mask, grad, 0)
