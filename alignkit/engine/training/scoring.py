"""Rows made of responses, and their log-probs under policies other than the trained one.

B = responses, T_i = tokens of response i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from alignkit.engine.forward.frozen import FrozenPolicy, detached_logprobs
from alignkit.engine.forward.remote import Scores
from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.reference import check_vocabularies, freeze, kl_estimate
from alignkit.engine.learning.reference_table import Reference
from alignkit.engine.learning.rows import Rows
from alignkit.engine.sampling.rollouts import Trajectory, sampled_batch, to_row
from alignkit.engine.tokens import TrainRow
from alignkit.engine.training.loop import Frame
from alignkit.engine.training.parts import Parts
from alignkit.protocols import Policy


@dataclass(frozen=True, slots=True)
class Frozen:
    """A reference whose weights no longer change, and how a policy is kept close to it."""

    to: Reference
    policy: FrozenPolicy | Scores

    @classmethod
    def of(cls, reference: Reference, policy: Policy, temperature: float) -> Frozen:
        """Freeze what the table names, or else ``policy`` as it is.

        ``temperature`` is what the policy's responses are sampled at.
        """
        return cls(reference, freeze(reference, policy, temperature))


def comparable(sampled: Sequence[Trajectory]) -> Rows:
    """Return rows of whole groups; losses compare the policy with what it is now."""
    batch = sampled_batch(sampled)
    rows = [to_row(t) for t in sampled]
    return Rows(rows=rows, group_sizes=batch.group_sizes, sampled=batch, old="present")


def hold(
    rows: Rows, reference: Frozen | None, frame: Frame, learner: Learner, temperature: float
) -> Rows:
    """Store log π_ref of each row; with k1 also subtract its penalty from the reward."""
    if reference is None or not rows.rows:
        return rows

    def make() -> tuple[list[Tensor], list[Tensor] | None]:
        with frame.clock("update"):
            budget = learner.token_budget
            ref = detached_logprobs(
                reference.policy, rows.rows, token_budget=budget, temperature=temperature
            )
            if reference.to.estimator != "k1":
                return ref, None
            return ref, learner.logprobs(rows.rows, temperature=temperature)

    ref, old = frame.once(make)
    given = zip(rows.rows, ref, strict=True)
    rows.rows = [replace(row, ref_logprobs=logprobs) for row, logprobs in given]
    if old is not None:
        rows.note_old(range(len(rows)), old)
        rows.rows = [_penalised(row, reference.to.beta) for row in rows.rows]
    return rows


def _penalised(row: TrainRow, beta: float) -> TrainRow:
    """Subtract β Σ_t (log π_old - log π_ref) from the reward."""
    assert row.old_logprobs is not None
    assert row.ref_logprobs is not None
    d = kl_estimate(row.old_logprobs, row.ref_logprobs, "k1").sum(dtype=torch.float64)
    return replace(row, reward=row.reward - beta * float(d))


def sums(
    rows: Sequence[TrainRow], policy: Policy | None, parts: Parts, frame: Frame, clock: str
) -> list[float]:
    """Return log π (nats) of each row's whole response; π is the trained policy unless given."""
    if isinstance(policy, Scores):
        policy.meet(parts.policy, temperature=1.0)
    elif policy is not None:
        check_vocabularies(policy, parts.policy)
    with frame.clock(clock):
        found = detached_logprobs(
            policy or parts.policy, rows, token_budget=parts.token_budget, temperature=1.0
        )
        return [float(logprobs.sum(dtype=torch.float64)) for logprobs in found]
