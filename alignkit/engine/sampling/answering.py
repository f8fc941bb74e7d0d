"""Responses with their rewards: one at a time to each prompt, or whole episodes.

Groups are judged while others are being generated, if backend and reward support that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from alignkit.abilities import streams
from alignkit.dialogues import SampledResponse
from alignkit.engine.observing.clock import Clock
from alignkit.engine.sampling.episodes import Plays
from alignkit.engine.sampling.generating import generated, streamed
from alignkit.engine.sampling.judging import Judging
from alignkit.engine.sampling.opening import Opening
from alignkit.engine.sampling.questions import Prompt, fits
from alignkit.engine.sampling.transcript import Cut, Exchange, Played
from alignkit.protocols import Completion, Policy, Reward, RewardFn, RolloutBackend, Sampling


@dataclass(frozen=True, slots=True)
class Answer:
    """A response and its reward."""

    completion: Completion
    reward: Reward
    turns: tuple[Exchange, ...] = ()
    cut: Cut = ""


def answered(
    prompts: Sequence[Prompt],
    policy: Policy,
    backend: RolloutBackend,
    reward: RewardFn,
    sampling: Sampling,
    clock: Clock,
) -> list[list[Answer]]:
    """Sample single responses to each prompt, and have them judged."""
    [found] = answered_each([(prompts, reward)], policy, backend, sampling, clock)
    return found


def answered_each(
    parts: Sequence[tuple[Sequence[Prompt], RewardFn]],
    policy: Policy,
    backend: RolloutBackend,
    sampling: Sampling,
    clock: Clock,
) -> list[list[list[Answer]]]:
    """Do the same as :func:`answered` for each part, with its own reward, in one backend call."""
    prompts = [prompt for some, _ in parts for prompt in some]
    judgings = [Judging(reward, [p.example for p in some]) for some, reward in parts]
    places = [
        (judging, number)
        for judging, (some, _) in zip(judgings, parts, strict=True)
        for number in range(len(some))
    ]
    with clock("rollout"):
        groups = iter(_generate(prompts, policy, backend, sampling, places))
    with clock("reward"):
        return [
            _judged(some, [next(groups) for _ in some], judging)
            for (some, _), judging in zip(parts, judgings, strict=True)
        ]


def _judged(
    prompts: Sequence[Prompt], groups: Sequence[list[Completion]], judging: Judging
) -> list[list[Answer]]:
    rewards = judging.finish([_responses(*pair) for pair in zip(prompts, groups, strict=True)])
    return [
        [Answer(*answer) for answer in zip(group, judged, strict=True)]
        for group, judged in zip(groups, rewards, strict=True)
    ]


def _generate(
    prompts: Sequence[Prompt],
    policy: Policy,
    backend: RolloutBackend,
    sampling: Sampling,
    places: Sequence[tuple[Judging, int]],
) -> list[list[Completion]]:
    """Return a group per prompt; judging of some may have started.

    ``places`` holds, for each prompt, what judges its group, and the group's index there.
    """
    asked = [i for i, p in enumerate(prompts) if fits(p, policy)]
    ids = [prompts[i].ids for i in asked]
    keyed = replace(sampling, prompt_keys=tuple(prompts[i].key for i in asked))
    if any(judging.can_start for judging, _ in places) and streams(backend):
        found: dict[int, list[Completion]] = {}
        for index, group in streamed(backend, ids, keyed, policy):
            found[index] = group
            judging, number = places[asked[index]]
            if judging.can_start:
                judging.start(number, _responses(prompts[asked[index]], group))
        groups = [found[i] for i in range(len(asked))]
    else:
        groups = generated(backend, ids, keyed, policy)
    blank = Completion("", (), (), "length", policy.version)
    answered = iter(groups)
    return [next(answered) if fits(p, policy) else [blank] * sampling.n for p in prompts]


def _responses(prompt: Prompt, group: Sequence[Completion]) -> list[SampledResponse]:
    """Return the texts of a group as a reward receives them."""
    return [SampledResponse.after(prompt.text, completion) for completion in group]


def played(
    prompts: Sequence[Prompt],
    opening: Opening,
    policy: Policy,
    backend: RolloutBackend,
    reward: RewardFn | None,
    sampling: Sampling,
    clock: Clock,
) -> list[list[Answer]]:
    """Play episodes from each prompt; the reward judges them, if there is one."""
    judging = Judging(reward, [p.example for p in prompts]) if reward is not None else None

    def over(group: int, played: Sequence[Played]) -> None:
        if judging is not None and judging.can_start:
            judging.start(group, _responses(prompts[group], [p.completion for p in played]))

    with clock("rollout"):
        plays = Plays(
            prompts,
            opening,
            policy=policy,
            backend=backend,
            sampling=sampling,
            settle=judging is None,
            over=over,
        )
        groups = plays.play()
    rewards: Sequence[Sequence[Reward]] = [[p.reward for p in group] for group in groups]
    if judging is not None:
        with clock("reward"):
            said = [[p.completion for p in group] for group in groups]
            rewards = judging.finish(
                [_responses(*pair) for pair in zip(prompts, said, strict=True)]
            )
    return [
        [Answer(p.completion, r, p.turns, p.cut) for p, r in zip(group, judged, strict=True)]
        for group, judged in zip(groups, rewards, strict=True)
    ]
