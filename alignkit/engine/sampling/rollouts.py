"""From questions to judged responses, without ever losing which belongs to which.

A response carries the id of its prompt and of its group from the moment it is sampled, the
token ids the backend drew are the ones that get trained on, and a prompt's group of G
responses stays one consecutive block. Each of these is checked, not assumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from alignkit.engine.observing.clock import Clock
from alignkit.engine.sampling.judging import Judging, extra
from alignkit.engine.seeds import shuffled
from alignkit.engine.tokens import TrainRow, encode
from alignkit.errors import AlignkitError
from alignkit.protocols import (
    Completion,
    Dataset,
    Example,
    Policy,
    PromptTemplate,
    Reward,
    RewardFn,
    RolloutBackend,
    Sampling,
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as the policy reads it."""

    key: int
    """Keys the draws of its responses; unlike ``index`` it differs between epochs."""
    index: int
    """Row of the dataset."""
    example: Example
    text: str
    ids: tuple[int, ...]
    """``text`` tokenized, no special tokens added."""


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
        backend.start(policy)
        yield
    finally:
        backend.close()


def make_prompt(
    key: int, index: int, example: Example, template: PromptTemplate, policy: Policy
) -> Prompt:
    """Render and tokenize one question."""
    text = template.render(example.question)
    return Prompt(key, index, example, text, encode(policy.tokenizer, text))


def fits(prompt: Prompt, policy: Policy, *, at_least: int = 1) -> bool:
    """Whether the policy can take the prompt and ``at_least`` response tokens."""
    return len(prompt.ids) + at_least <= policy.max_length


class PromptStream:
    """Questions in epochs: each is drawn once, in an order keyed by the seed, before any again.

    ``position`` and ``skipped`` are the whole state: with them, the stream goes on from there.
    Prompts too long for the policy are passed over and counted in ``skipped``.
    """

    def __init__(
        self, data: Dataset, template: PromptTemplate, policy: Policy, *, seed: int
    ) -> None:
        if len(data) == 0:
            raise AlignkitError("[data] holds no examples; there is nothing to ask the policy")
        self._data, self._template, self._policy, self._seed = data, template, policy, seed
        self._order: tuple[int, list[int]] = (-1, [])
        self.position = 0
        """Questions drawn so far, those passed over included."""
        self.skipped = 0
        """Prompts passed over so far because they leave the policy no room to answer."""

    def take(self, count: int) -> list[Prompt]:
        """Return the next ``count`` prompts; AlignkitError if not one of the data fits."""
        prompts: list[Prompt] = []
        passed_over = 0
        while len(prompts) < count:
            prompt = self._next()
            if fits(prompt, self._policy):
                prompts.append(prompt)
                passed_over = 0
                continue
            self.skipped += 1
            passed_over += 1
            if passed_over == len(self._data):
                raise AlignkitError(
                    f"every prompt of [data] fills the {self._policy.max_length} tokens the policy "
                    f"takes, which leaves no room for an answer; use shorter questions, a shorter "
                    f"template or another policy"
                )
        return prompts

    def state_dict(self) -> dict[str, int]:
        """Return the whole state."""
        return {"position": self.position, "skipped": self.skipped}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.position, self.skipped = state["position"], state["skipped"]

    def _next(self) -> Prompt:
        epoch, offset = divmod(self.position, len(self._data))
        if self._order[0] != epoch:
            self._order = (epoch, shuffled(len(self._data), f"{self._seed}/questions/{epoch}"))
        self.position += 1
        index = self._order[1][offset]
        key = epoch * len(self._data) + index  # a question's second epoch draws anew
        return make_prompt(key, index, self._data[index], self._template, self._policy)


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
    judging = Judging(reward, [p.example for p in prompts])
    with clock("rollout"):
        groups = _generate(prompts, policy, backend, sampling, judging)
    with clock("reward"):
        rewards = judging.finish([[c.text for c in group] for group in groups])
    return [
        Trajectory(p.index, group_id, p.example, p.text, p.ids, completion, given)
        for group_id, (p, group, judged) in enumerate(
            zip(prompts, groups, rewards, strict=True), first_group
        )
        for completion, given in zip(group, judged, strict=True)
    ]


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
    stream = extra(backend, "stream", beside="generate")  # nosec B610 # no SQL
    if not asked:
        groups = []
    elif stream is not None and judging.can_start:
        groups = _gather(stream(ids, keyed), asked, judging)
    else:
        groups = backend.generate(ids, keyed)
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
        judging.start(asked[index], [c.text for c in group])
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
        rollout_logprobs=torch.tensor(completion.logprobs, dtype=torch.float32),
    )


def check_groups(trajectories: Sequence[Trajectory], group_size: int) -> None:
    """Raise ValueError unless every block of ``group_size`` answers one prompt, in batch order.

    Call it where groups are consumed: an advantage computed over a block that mixes prompts is
    a silent error that costs most of the learning signal.
    """
    if len(trajectories) % group_size:
        raise ValueError(f"{len(trajectories)} responses are not whole groups of {group_size}")
    for start in range(0, len(trajectories), group_size):
        block = trajectories[start : start + group_size]
        members = {(t.group_id, t.prompt_id, t.prompt_ids, t.example.id) for t in block}
        if len(members) != 1:
            raise ValueError(
                f"responses {start} to {start + group_size - 1} should be one group but answer "
                f"{len(members)} prompts: {sorted((m[0], m[1]) for m in members)}"
            )
    ids = [t.group_id for t in trajectories[::group_size]]
    if len(set(ids)) != len(ids):
        raise ValueError(f"a group is split over several blocks: group ids {ids}")
