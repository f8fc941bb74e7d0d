"""On-policy distillation: a teacher scores every token of the responses that the student samples.

Lu and Thinking Machines Lab 2025, "On-Policy Distillation"
(https://thinkingmachines.ai/blog/on-policy-distillation/); a special case of generalised
knowledge distillation, Agarwal et al. 2024, arXiv:2306.13649, eq. 4 with λ = 1 and the reverse KL.
What is minimised, over contexts that the student visits, is

    KL(π_θ ‖ π_T) = E_{o ~ π_θ} [log π_θ(o_t | q, o_<t) - log π_T(o_t | q, o_<t)]

by policy gradient: the advantage of a token is minus this difference at it,

    Â_i,t = log π_T(o_i,t | q, o_i,<t) - log π_old(o_i,t | q, o_i,<t).

As in the source, a token answers for its own difference only (discount 0), and nothing is learned
from the reward, which is reported. Where this differs: π_old's log-probs are the trainer's and not
the rollout backend's, as in ``grpo``; loss and normalizer are the recipe's. The source's own are
``no_clip``, its "importance sampling" loss, and a mean over all tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Unpack

from pydantic import Field

from alignkit.abilities import only_scores
from alignkit.engine.learning.reference_table import Reference
from alignkit.footprint import ModelSizes, Workload
from alignkit.protocols import (
    Algorithm,
    Dataset,
    LossInputs,
    LossOutput,
    LossType,
    Normalizer,
    Policy,
)
from alignkit.training import Metrics, SamplingSlots, Training, training
from alignkit_algorithms.shared import (
    Trained,
    divides,
    sampled_not_greedy,
    suited,
    token_facts,
    warm_enough,
)

TEACHER = "teacher"
"""The purpose of memory that its weights take."""


class Distill(Trained):
    """On-policy distillation (Thinking Machines Lab 2025): a teacher scores each sampled token.

    ``[teacher]`` names the teacher, a policy whose vocabulary is the student's: in this process
    (``use = "hf"``) or behind a server (``use = "vllm"``). Its log-probability of a token less the
    student's is the token's advantage, so that the student comes to minimise the reverse KL
    divergence from the teacher on its own responses. The reward is only reported.
    """

    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0
    """Fixes everything random: questions, responses."""

    n_steps: Annotated[int, Field(ge=1)] = 100
    """Rollout batches, each followed by its updates."""

    rollout_batch_size: Annotated[int, Field(ge=1)] = 256
    """Responses per rollout batch; a multiple of ``group_size``."""

    group_size: Annotated[int, Field(ge=1)] = 4
    """Responses per prompt. They are not compared with each other; 1 is fine."""

    train_batch_size: Annotated[int, Field(ge=1)] = 256
    """Responses per optimizer step; divides ``rollout_batch_size``."""

    token_budget: Annotated[int, Field(ge=1)] = 8192
    """Padded prompt and response tokens per micro-batch. Limits memory; results do not change."""

    save_rollouts_every: Annotated[int, Field(ge=0)] = 10
    """Steps between saved rollout tables, the first and last step's included. 0 = none."""

    def build(
        self,
        *,
        data: Dataset,
        teacher: Policy,
        loss: LossType,
        normalizer: Normalizer,
        **shared: Unpack[SamplingSlots],
    ) -> Algorithm:
        def train(t: Training) -> Metrics:
            frozen = t.freeze(Reference(beta=0.0, estimator="k2", policy=teacher))  # π_T
            for _ in t.steps(self.n_steps, updates=self.updates_per_batch):
                sampled = t.sample(  # q ~ P(Q), o_i ~ π_old
                    data, self.rollout_batch_size, group_size=self.group_size
                )
                rows = t.score(sampled, frozen)  # log π_old, log π_T
                objective = t.surrogate(toward_teacher(loss))
                batches = rows.batches(self.train_batch_size)
                done = [t.update(batch, objective, normalizer) for batch in batches]  # θ
                t.sync()  # π_old ← π_θ
                t.save_rollouts(sampled, self.save_rollouts_every)
                t.log(t.means(done), t.summary(sampled), updates=len(done))
            return t.finish()

        own = {"loss": loss, "normalizer": normalizer}
        return training(self, train, **shared, remember=own)

    @property
    def updates_per_batch(self) -> int:
        """Optimizer steps per rollout batch."""
        return self.rollout_batch_size // self.train_batch_size

    def provides(self, tables: Mapping[str, Any]) -> frozenset[str]:
        return frozenset({"old_logprobs", "ref_logprobs", "rollout_logprobs"})

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from suited(tables)
        yield from divides(self, "group_size", "responses per prompt")
        yield from divides(self, "train_batch_size", "responses per optimizer step")
        yield from warm_enough(self.n_steps * self.updates_per_batch, tables)
        yield from sampled_not_greedy(tables)
        yield from at_one(tables)

    def memory(
        self, tables: Mapping[str, Any], sizes: ModelSizes, workload: Workload
    ) -> Mapping[str, float | None]:
        """Count the weights of a teacher in this process."""
        teacher = tables["teacher"]
        if only_scores(teacher):
            return {}
        own: ModelSizes | None = teacher.sizes({})
        return {TEACHER: own.parameters * own.number if own else None}

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        return {
            "rollout batch": f"{self.rollout_batch_size // self.group_size} prompts × "
            f"{self.group_size} responses = {self.rollout_batch_size} responses",
            "optimizer steps in all": str(self.updates_per_batch * self.n_steps),
            **token_facts(tables, self.rollout_batch_size, self.n_steps),
        }


def toward_teacher(loss: LossType) -> LossType:
    """Return ``loss`` with the advantage log π_T - log π_old of each token, (B, T), in nats.

    Logs minus its mean as ``teacher_kl``, an unbiased estimate of KL(π_old ‖ π_T) per token.
    ValueError without the log-probs of either.
    """

    def scored(x: LossInputs) -> LossOutput:
        if x.old_logprobs is None or x.ref_logprobs is None:
            raise ValueError("distillation needs old_logprobs and the teacher's ref_logprobs")
        reverse_kl = (x.old_logprobs - x.ref_logprobs).detach()  # (B, T)
        output = loss(replace(x, advantages=-reverse_kl))
        return LossOutput(
            per_token=output.per_token, metrics={**output.metrics, "teacher_kl": reverse_kl}
        )

    return scored


def at_one(tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield a problem where the teacher is a server and responses are sampled at another than 1."""
    temperature = getattr(tables.get("rollout"), "temperature", 1.0)
    if only_scores(tables.get("teacher")) and temperature not in (0.0, 1.0):
        yield (
            "rollout.temperature",
            f"the teacher's server gives log-probs at temperature 1, not {temperature:g}; sample "
            'at 1.0, or have the teacher in this process ([teacher] use = "hf")',
        )
