"""One optimizer step from a batch of rows, whatever micro-batches it is cut into.

What is done the same way for every algorithm, and why:

- Losses are divided by the counts of the whole step, so micro-batches add up to the big batch.
- Rows whose advantage is zero are not computed if the loss is zero for them (it is asked, see
  ``signal``): they count in the totals and add nothing. ``token_entropy`` and the loss's own
  metrics are means over the response tokens that are computed, and
  ``computed_token_share`` says how many of the step's that is. Where no row has an advantage, the
  first of them, of ``METRIC_TOKENS`` tokens, go forward all the same, so that the metrics exist.
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
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alignkit.engine.forward.logprobs import cut, response_logprobs
from alignkit.engine.forward.shortage import explained
from alignkit.engine.learning.signal import needs_advantage
from alignkit.engine.observing.metering import note_rows
from alignkit.engine.tokens import TrainRow, pad_values
from alignkit.protocols import LossInputs, LossType, Normalizer, Optimizer, Policy, StepTotals

if TYPE_CHECKING:
    from torch import nn

    from alignkit.engine.observing.inspector import Inspector


CPU_TOKENS = 2048
"""Micro-batches on a CPU hold at most so many tokens: more gain no speed and take memory
(measured from 512 to 6,400 on models of 0.6 and 4.5 million parameters)."""

METRIC_TOKENS = 256
"""Response tokens that the metrics of a step without any advantage are taken from, at least
as far as there are so many. Fixed, so that metrics do not depend on the token budget."""


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
        self._flat: dict[frozenset[str], bool] = {}

    def logprobs(self, rows: Sequence[TrainRow]) -> list[Tensor]:
        """Return the log-probs of each row's response tokens, (T_i,) on the CPU, no gradient."""
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        with torch.no_grad():
            for batch in self._cut(rows):
                logprobs, _, mask = self._forward(batch.rows, with_entropy=False)
                for index, values in zip(batch.at, _by_row(logprobs, mask), strict=True):
                    found[index] = values
        return found

    def old_logprobs(self, rows: Sequence[TrainRow]) -> list[Tensor | None]:
        """Return what ``logprobs`` does, but None for rows that updates will not compute."""
        chosen = {id(row) for row in self._with_effect(rows)}
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
        computed = self._with_effect(rows)
        tally = _Tally(sum(len(r.response_ids) for r in computed))
        for batch in self._cut(computed):
            self.pause()
            logprobs, mask = self._accumulate(batch.rows, totals, tally)
            if keep is not None:
                keep.update(zip(map(id, batch.rows), _by_row(logprobs, mask), strict=True))
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

    def _with_effect(self, rows: Sequence[TrainRow]) -> Sequence[TrainRow]:
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
            self._flat[given] = needs_advantage(self.loss, given)
        return self._flat[given]

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
        self, rows: Sequence[TrainRow], totals: StepTotals, tally: _Tally
    ) -> tuple[Tensor, Tensor]:
        """Add the gradient of one micro-batch to ``grad``; return its log-probs and mask."""
        logprobs, entropy, mask = self._forward(rows, with_entropy=True)
        leaf = logprobs.detach().requires_grad_()  # (B, T)
        inputs = _loss_inputs(rows, leaf, mask)
        if any(row.old_logprobs is not None for row in rows) and inputs.old_logprobs is not None:
            tally.log_ratios.append((leaf.detach() - inputs.old_logprobs)[mask].float().cpu())
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


@dataclass(slots=True)
class _Tally:
    """Sums over the micro-batches of one step."""

    tokens: int
    """Response tokens that are computed."""
    loss: float = 0.0
    sums: dict[str, float] = field(
        default_factory=lambda: {"token_entropy": 0.0}  # nosec B105 # no password
    )
    log_ratios: list[Tensor] = field(default_factory=list)
    """log π - log π_old of the tokens computed, (n,) for each micro-batch."""

    def add(self, scalar: Tensor, metrics: Mapping[str, Tensor | None], mask: Tensor) -> None:
        self.loss += float(scalar.detach())
        for name, values in metrics.items():
            if values is not None:
                kept = torch.where(mask, values.detach(), 0)  # (B, 1) broadcasts to (B, T)
                total = float(kept.sum(dtype=torch.float64))
                self.sums[name] = self.sums.get(name, 0.0) + total

    def means(self) -> dict[str, float]:
        """Return means over the computed response tokens; 0 where there is no token."""
        return {name: total / max(self.tokens, 1) for name, total in self.sums.items()}

    def ratios(self) -> dict[str, float]:
        """Return the 99th percentiles (nearest rank) of π/π_old and its inverse, if known."""
        if not self.log_ratios:
            return {}
        ordered = torch.cat(self.log_ratios).sort().values  # (n,)
        rank = math.ceil(0.99 * len(ordered)) - 1
        return {
            "ratio_p99": math.exp(min(float(ordered[rank]), 700.0)),
            "ratio_inverse_p99": math.exp(min(-float(ordered[len(ordered) - 1 - rank]), 700.0)),
        }


def _by_row(values: Tensor, mask: Tensor) -> list[Tensor]:
    """Cut (B, T) values into each row's own, (T_i,), on the CPU."""
    return [row[there].clone() for row, there in zip(values.cpu(), mask.cpu(), strict=True)]


def _gradient(scalar: Tensor, leaf: Tensor, mask: Tensor) -> Tensor:
    """Return d scalar / d log-probs, (B, T), with nothing at padding."""
    if not scalar.requires_grad:
        return torch.zeros_like(leaf)
    (grad,) = torch.autograd.grad(scalar, leaf, allow_unused=True, materialize_grads=True)
    return torch.where(mask, grad, 0)


def _loss_inputs(rows: Sequence[TrainRow], logprobs: Tensor, mask: Tensor) -> LossInputs:
    """Gather what the rows carry into (B, T) tensors beside their log-probs."""
    current = logprobs.detach()
    return LossInputs(
        logprobs=logprobs,
        mask=mask,
        advantages=current.new_tensor([r.advantage for r in rows])[:, None],  # (B, 1)
        old_logprobs=_stack([r.old_logprobs for r in rows], current, mask),
        ref_logprobs=_all_or_none([r.ref_logprobs for r in rows], current, "ref_logprobs"),
        rollout_logprobs=_all_or_none(
            [r.rollout_logprobs for r in rows], current, "rollout_logprobs"
        ),
    )


def _stack(values: Sequence[Tensor | None], current: Tensor, mask: Tensor) -> Tensor:
    """Pad (T_i,) tensors to (B, T); a row without one gets the current log-probs."""
    if all(value is None for value in values):
        return current
    filled = [
        row[keep].cpu() if value is None else value
        for value, row, keep in zip(values, current, mask, strict=True)
    ]
    return pad_values(filled, current)


def _all_or_none(values: Sequence[Tensor | None], like: Tensor, name: str) -> Tensor | None:
    """Pad (T_i,) tensors to (B, T), or return None if no row has one."""
    given = [value for value in values if value is not None]
    if not given:
        return None
    if len(given) < len(values):
        raise ValueError(f"{name}: {len(given)} of {len(values)} rows have them; all or none must")
    return pad_values(given, like)
