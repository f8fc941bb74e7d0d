"""Checks of rollout backends that return groups as they finish."""

from __future__ import annotations

from alignkit.abilities import streams
from alignkit_testing.kit import Subject
from alignkit_testing.served import is_same, prompts_of, sampling_of, serving


def streams_what_it_generates(subject: Subject) -> None:
    """`stream`, where there is one, gives each prompt's index once, with what `generate` gives."""
    with serving(subject) as (backend, policy):
        if not streams(backend):
            return
        prompts, sampling = prompts_of(policy), sampling_of(n=3)
        want = backend.generate(prompts, sampling)
        found = list(backend.stream(prompts, sampling))
        indices = [index for index, _ in found]
        assert sorted(indices) == list(range(len(prompts))), (
            f"stream gives the indices {indices} for {len(prompts)} prompts; each belongs once"
        )
        for index, group in found:
            is_same(index, group, want[index])
        assert list(backend.stream([], sampling)) == [], "no prompts must stream nothing"


def can_be_left_amid_a_stream(subject: Subject) -> None:
    """Who stops reading a stream half-way gets right answers from the next call all the same."""
    with serving(subject) as (backend, policy):
        if not streams(backend):
            return
        prompts, sampling = prompts_of(policy), sampling_of(n=3)
        want = backend.generate(prompts, sampling)
        left = iter(backend.stream(prompts, sampling))
        next(left)
        del left
        for index, group in enumerate(backend.generate(prompts, sampling)):
            is_same(index, group, want[index])
        policy.version += 1
        backend.sync(policy)
