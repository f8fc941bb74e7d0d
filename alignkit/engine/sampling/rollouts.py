"""From questions to judged responses, without ever losing which belongs to which.

A response carries the id of its prompt and of its group from the moment it is sampled, the
token ids the backend drew are the ones that get trained on, and a prompt's group of G
responses stays one consecutive block. Each of these is checked, not assumed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import TypeVar

import torch

from alignkit.abilities import streams
from alignkit.engine.asking import ask, blamed
from alignkit.engine.observing.clock import Clock
from alignkit.engine.ranks import Ranks, here
from alignkit.engine.sampling.judging import Judging
from alignkit.engine.sampling.questions import Prompt, fits
from alignkit.engine.tokens import TrainRow
from alignkit.protocols import (
    Completion,
    Example,
    Policy,
    PromptTemplate,
    Response,
    Reward,
    RewardFn,
    RolloutBackend,
    SampledBatch,
    Sampling,
    Stateful,
)

T = TypeVar("T")

logger = logging.getLogger("alignkit")

BACKEND = "rollout backend"


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One judged response."""

    prompt_id: int
    """Row of the dataset the question is in."""
    group_id: int
    """Position of its prompt in the rollout batch; equal for the responses of one group."""
    example: Example
    prompt_text: str
    prompt_ids: tuple[int, ...]
    completion: Completion
    reward: Reward
    step: int = 0
    """Step of the loop it was sampled for."""

    @property
    def truncated(self) -> bool:
        """Whether the response was cut before the model ended it."""
        return self.completion.finish_reason == "length"

    @property
    def empty(self) -> bool:
        """Whether the response holds nothing but white space or special tokens."""
        return not self.completion.text.strip()


@contextmanager
def serving(backend: RolloutBackend | None, policy: Policy) -> Iterator[None]:
    """Start ``backend``, if any, on ``policy``; release it however the block ends."""
    if backend is None:
        yield
        return
    try:
        ask(BACKEND, backend, backend.start, policy)
        yield
    except BaseException:
        try:
            backend.close()
        except Exception:  # what ended the block is told, and this beside it
            logger.warning("the rollout backend could not be closed", exc_info=True)
        raise
    ask(BACKEND, backend, backend.close)


def with_stops(sampling: Sampling, template: PromptTemplate) -> Sampling:
    """Add the template's stop strings to those the recipe asks for."""
    return replace(sampling, stop=tuple(dict.fromkeys((*sampling.stop, *template.stop))))


def collect(
    prompts: Sequence[Prompt],
    *,
    policy: Policy,
    backend: RolloutBackend,
    reward: RewardFn,
    sampling: Sampling,
    clock: Clock,
    first_group: int = 0,
) -> list[Trajectory]:
    """Sample ``sampling.n`` responses for each prompt and judge them.

    Returns ``len(prompts) * sampling.n`` trajectories, a prompt's responses next to each other
    in the order of ``prompts``; groups are numbered from ``first_group``. A prompt that leaves no
    room for an answer gets empty responses with finish reason "length".

    A backend that streams and a reward that can be submitted to work at the same time, group by
    group; rewards and order are the same as without. Seconds go to ``clock``: "rollout" is
    generation, "reward" the wait for verdicts that remains after it.
    Raises RuntimeError when the backend breaks its contract, AlignkitError when the reward does.
    """
    ranks = here()
    mine = [prompts[i] for i in range(ranks.rank, len(prompts), ranks.size)]
    in_order = ranks.size > 1 and isinstance(reward, Stateful)
    judging = Judging(reward, [p.example for p in mine], beside=not in_order)
    with clock("rollout"):
        groups = _generate(mine, policy, backend, sampling, judging)
    if in_order:  # one rank judges all: what it remembers, the others would lack
        groups = _of_all(ranks, groups)
        judging = Judging(reward, [p.example for p in prompts] if ranks.rank == 0 else [])
    with clock("reward"):
        judged = groups if ranks.rank == 0 or not in_order else []
        rewards = judging.finish([[Response.of(c) for c in group] for group in judged])
    if in_order:
        rewards = ranks.first([list(given) for given in rewards])
    elif ranks.size > 1:
        pairs = _of_all(ranks, [*zip(groups, map(list, rewards), strict=True)])
        groups, rewards = [group for group, _ in pairs], [given for _, given in pairs]
    ranks.let_in()
    return [
        Trajectory(p.index, group_id, p.example, p.text, p.ids, completion, given, sampling.step)
        for group_id, (p, group, judged) in enumerate(
            zip(prompts, groups, rewards, strict=True), first_group
        )
        for completion, given in zip(group, judged, strict=True)
    ]


def _of_all(ranks: Ranks, own: Sequence[T]) -> list[T]:
    """Return what all ranks have for the prompts that were theirs, in the order of the prompts."""
    found = ranks.merge({ranks.rank + i * ranks.size: value for i, value in enumerate(own)})
    return list(found.values())


def _generate(
    prompts: Sequence[Prompt],
    policy: Policy,
    backend: RolloutBackend,
    sampling: Sampling,
    judging: Judging,
) -> list[list[Completion]]:
    """Return a group per prompt; judging of some may have started."""
    asked = [i for i, p in enumerate(prompts) if fits(p, policy)]
    ids = [prompts[i].ids for i in asked]
    keyed = replace(sampling, prompt_keys=tuple(prompts[i].key for i in asked))
    if not asked:
        groups = []
    elif judging.can_start and streams(backend):
        with blamed(BACKEND, backend):
            groups = _gather(backend.stream(ids, keyed), asked, judging)
    else:
        groups = ask(BACKEND, backend, backend.generate, ids, keyed)
    if len(groups) != len(asked) or any(len(group) != sampling.n for group in groups):
        raise RuntimeError(
            f"the rollout backend was asked for {sampling.n} responses to each of {len(asked)} "
            f"prompts and returned groups of {sorted({len(g) for g in groups})} for {len(groups)}"
        )
    _check_versions(groups, policy)
    blank = Completion("", (), (), "length", policy.version)
    answered = iter(groups)
    return [next(answered) if fits(p, policy) else [blank] * sampling.n for p in prompts]


def _gather(
    stream: Iterable[tuple[int, list[Completion]]], asked: Sequence[int], judging: Judging
) -> list[list[Completion]]:
    """Start judging each group as it arrives; return all in the order asked, [] for a lost one."""
    groups: dict[int, list[Completion]] = {}
    for index, group in stream:
        if index in groups or not 0 <= index < len(asked):
            raise RuntimeError(
                f"the rollout backend was asked for prompts 0 to {len(asked) - 1} and gave "
                f"responses to prompt {index} {'twice' if index in groups else 'too'}"
            )
        groups[index] = group
        judging.start(asked[index], [Response.of(c) for c in group])
    return [groups.get(i, []) for i in range(len(asked))]


def _check_versions(groups: Sequence[Sequence[Completion]], policy: Policy) -> None:
    stale = {c.weight_version for group in groups for c in group} - {policy.version}
    if stale:
        raise RuntimeError(
            f"responses were sampled by weight version {sorted(stale)} while the policy is at "
            f"{policy.version}: the rollout backend did not take over the last update"
        )


def to_row(trajectory: Trajectory) -> TrainRow:
    """Take the sampled token ids as they are; text is never tokenized again."""
    completion = trajectory.completion
    return TrainRow(
        trajectory.prompt_ids,
        completion.token_ids,
        reward=trajectory.reward.total,
        weight_version=completion.weight_version,
        rollout_logprobs=torch.tensor(completion.logprobs, dtype=torch.float32),
    )


def sampled_batch(trajectories: Sequence[Trajectory]) -> SampledBatch:
    """Return whole groups, all of one step, as an advantage sees them."""
    rewards = [t.reward.total for t in trajectories]
    return SampledBatch(
        rewards=torch.tensor(rewards, dtype=torch.float64),
        group_sizes=group_sizes(trajectories),
        lengths=torch.tensor([len(t.completion.token_ids) for t in trajectories]).long(),
        responses=[Response.of(t.completion) for t in trajectories],
        examples=[t.example for t in trajectories],
        parts=[t.reward.parts for t in trajectories],
        step=trajectories[0].step if trajectories else 0,
    )


def check_groups(trajectories: Sequence[Trajectory], group_size: int) -> None:
    """Raise ValueError unless every block of ``group_size`` answers one prompt, in batch order.

    Call it where groups are consumed: an advantage computed over a block that mixes prompts is
    a silent error that costs most of the learning signal.
    """
    if len(trajectories) % group_size:
        raise ValueError(f"{len(trajectories)} responses are not whole groups of {group_size}")
    _check_blocks(trajectories, [group_size] * (len(trajectories) // group_size))


def group_sizes(trajectories: Sequence[Trajectory]) -> list[int]:
    """Return the sizes of consecutive groups, which may differ; ValueError as `check_groups`."""
    sizes = [len([*group]) for _, group in groupby(trajectories, key=lambda t: t.group_id)]
    _check_blocks(trajectories, sizes)
    return sizes


def _check_blocks(trajectories: Sequence[Trajectory], sizes: Sequence[int]) -> None:
    ends = list(accumulate(sizes))
    blocks = [trajectories[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    for block, end in zip(blocks, ends, strict=True):
        members = {(t.group_id, t.prompt_id, t.prompt_ids, t.example.id) for t in block}
        if len(members) != 1:
            raise ValueError(
                f"responses {end - len(block)} to {end - 1} should be one group but answer "
                f"{len(members)} prompts: {sorted((m[0], m[1]) for m in members)}"
            )
    ids = [block[0].group_id for block in blocks]
    if len(set(ids)) != len(ids):
        raise ValueError(f"a group is split over several blocks: group ids {ids}")
