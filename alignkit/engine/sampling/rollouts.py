"""From questions to judged responses, keeping track of which belongs to which.

A response carries the id of its prompt and of its group from the moment it is sampled, the
token ids the backend drew are the ones that get trained on, and a prompt's group of G
responses stays one consecutive block. Each of these is checked, not assumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Protocol, runtime_checkable

import torch

from alignkit.dialogues import SampledResponse
from alignkit.engine.asking import ask, closing
from alignkit.engine.observing.clock import Clock
from alignkit.engine.ranks import here
from alignkit.engine.sampling.answering import Answer, answered, answered_each, played
from alignkit.engine.sampling.generating import BACKEND
from alignkit.engine.sampling.opening import Opening
from alignkit.engine.sampling.questions import Prompt
from alignkit.engine.sampling.sharing import dealt, of_all
from alignkit.engine.sampling.transcript import Cut, Exchange
from alignkit.engine.tokens import TrainRow, sampled_tokens
from alignkit.protocols import (
    Completion,
    Example,
    Policy,
    PromptTemplate,
    Reward,
    RewardFn,
    RolloutBackend,
    SampledBatch,
    Sampling,
    Stateful,
)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One judged response."""

    prompt_id: int
    """Row of the dataset with the question."""
    group_id: int
    """Position of its prompt in the rollout batch; equal for the responses of one group."""
    example: Example
    prompt_text: str
    prompt_ids: tuple[int, ...]
    completion: Completion
    reward: Reward
    step: int = 0
    """Step of the loop it was sampled for."""
    turns: tuple[Exchange, ...] = ()
    """The turns of an episode; none of a response without an environment."""
    cut: Cut = ""
    """Which limit cut the episode, see :class:`~alignkit.engine.sampling.episodes.Played`."""

    @property
    def truncated(self) -> bool:
        """Whether the response was cut before the model or the environment ended it."""
        return self.completion.finish_reason == "length"

    @property
    def empty(self) -> bool:
        """Whether the policy wrote only white space or special tokens."""
        said = [turn.response for turn in self.turns] or [self.completion.text]
        return not "".join(said).strip()


@runtime_checkable
class Computes(Protocol):
    """A rollout backend that chooses between ways of doing its work."""

    @property
    def computed(self) -> Mapping[str, str]:
        """What it chose and why, by name; a run's manifest records it under ``computed``."""
        ...


@contextmanager
def serving(backend: RolloutBackend | None, policy: Policy) -> Iterator[None]:
    """Start ``backend``, if any, on ``policy``; release it, however the block ends."""
    if backend is None:
        yield
        return
    with closing(BACKEND, backend):
        ask(BACKEND, backend, backend.start, policy)
        yield


def with_stops(sampling: Sampling, asks: PromptTemplate | Opening) -> Sampling:
    """Add the stop strings of a template or environment to those the recipe asks for.

    A limit on the environment's turns replaces the rollout table's limit.
    """
    stop = tuple(dict.fromkeys((*sampling.stop, *asks.stop)))
    limit = asks.environment.limits.turn_tokens if isinstance(asks, Opening) else None
    most = sampling.max_tokens if limit is None else limit
    return replace(sampling, stop=stop, max_tokens=most, min_tokens=min(sampling.min_tokens, most))


def collect(
    prompts: Sequence[Prompt],
    *,
    policy: Policy,
    backend: RolloutBackend,
    reward: RewardFn | None,
    sampling: Sampling,
    clock: Clock,
    first_group: int = 0,
    opening: Opening | None = None,
) -> list[Trajectory]:
    """Sample ``sampling.n`` responses for each prompt and judge them.

    With ``opening`` a response is a whole episode; its environment gives its reward, unless there
    is a reward function.

    Returns ``len(prompts) * sampling.n`` trajectories, a prompt's responses next to each other
    in the order of ``prompts``; groups are numbered from ``first_group``. A prompt that leaves no
    room for an answer gets empty responses with finish reason "length".

    A backend that streams and a reward that can be submitted to work at the same time, group by
    group; rewards and order are the same as without. Seconds go to ``clock``: "rollout" is
    generation, "reward" the wait for verdicts that remains after it.
    Raises RuntimeError when the backend breaks its contract, AlignkitError when the reward does.
    """
    ranks = here()
    world = opening.environment if opening is not None else None
    in_order = isinstance(reward, Stateful) or isinstance(world, Stateful)
    mine = dealt(ranks, len(prompts), in_order=in_order)
    some = [prompts[i] for i in mine]
    groups: list[list[Answer]] = []
    if not some and ranks.size > 1:
        pass
    elif opening is not None:
        groups = played(some, opening, policy, backend, reward, sampling, clock)
    elif reward is not None:
        groups = answered(some, policy, backend, reward, sampling, clock)
    else:
        raise ValueError("responses need a reward to judge them, or an environment")
    groups = of_all(ranks, mine, groups)
    return _trajectories(prompts, groups, sampling.step, first_group)


def collect_each(
    parts: Sequence[tuple[Sequence[Prompt], RewardFn]],
    *,
    policy: Policy,
    backend: RolloutBackend,
    sampling: Sampling,
    clock: Clock,
) -> list[list[Trajectory]]:
    """Sample for all prompts in one call, judge each part's responses by its own reward.

    Returns per part what :func:`collect` returns for it. One call costs less than one per part,
    as small batches take as many steps as large ones.
    """
    ranks = here()
    places = [
        dealt(ranks, len(prompts), in_order=isinstance(reward, Stateful))
        for prompts, reward in parts
    ]
    mine = [
        ([prompts[i] for i in at], reward)
        for (prompts, reward), at in zip(parts, places, strict=True)
    ]
    found = answered_each(mine, policy, backend, sampling, clock)
    whole = [of_all(ranks, *own) for own in zip(places, found, strict=True)]
    return [
        _trajectories(prompts, groups, sampling.step, 0)
        for (prompts, _), groups in zip(parts, whole, strict=True)
    ]


def _trajectories(
    prompts: Sequence[Prompt], groups: Sequence[Sequence[Answer]], step: int, first_group: int
) -> list[Trajectory]:
    """Return the responses of all groups, in order."""
    return [
        Trajectory(
            prompt_id=p.index,
            group_id=group_id,
            example=p.example,
            prompt_text=p.text,
            prompt_ids=p.ids,
            completion=answer.completion,
            reward=answer.reward,
            step=step,
            turns=answer.turns,
            cut=answer.cut,
        )
        for group_id, (p, group) in enumerate(zip(prompts, groups, strict=True), first_group)
        for answer in group
    ]


def to_row(trajectory: Trajectory) -> TrainRow:
    """Use the sampled token ids as they are; text is never tokenized again."""
    completion = trajectory.completion
    return TrainRow(
        trajectory.prompt_ids,
        completion.token_ids,
        given=completion.given,
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
        lengths=torch.tensor([sampled_tokens(t.completion) for t in trajectories]).long(),
        responses=[SampledResponse.after(t.prompt_text, t.completion) for t in trajectories],
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
