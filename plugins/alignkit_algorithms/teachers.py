"""Who writes the traces: a policy through its rollout backend, or an endpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from alignkit.dialogues import Converses, SampledResponse
from alignkit.engine.asking import ask
from alignkit.engine.prompting import end_turns
from alignkit.engine.sampling.endpoint import Endpoint, Text
from alignkit.engine.sampling.generating import generated
from alignkit.engine.sampling.questions import fits, make_prompt
from alignkit.engine.sampling.rollouts import serving, with_stops
from alignkit.protocols import Completion, Example, Policy, PromptTemplate, RolloutBackend


@dataclass(frozen=True, slots=True)
class Wanted:
    """A question, and which of its responses are still to be had."""

    index: int
    example: Example
    samples: Sequence[int]


@dataclass(frozen=True, slots=True)
class Said:
    """One response of a teacher."""

    wanted: Wanted
    sample: int
    prompt: str
    text: str | None
    """A ``SampledResponse`` of a policy; None if none could be had."""
    finish_reason: str = ""
    """"stop" or "length"; "" where the endpoint does not say."""


@dataclass(frozen=True, slots=True)
class PolicyTeacher:
    """Draws are keyed by seed, question and number, so a resumed run gives the same responses."""

    policy: Policy
    backend: RolloutBackend
    template: PromptTemplate
    seed: int
    samples: int

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Start the backend, and release it however the block ends."""
        end_turns(self.policy, [self.template])
        with serving(self.backend, self.policy):
            yield

    def said(self, wanted: Sequence[Wanted]) -> list[Said]:
        """Return the responses wanted; none to a question that leaves no room for one."""
        prompts = [
            make_prompt(w.index, w.index, w.example, self.template, self.policy) for w in wanted
        ]
        some = [p for p in prompts if fits(p, self.policy)]
        base = with_stops(self.backend.sampling, self.template)
        keys = tuple(p.key for p in some)
        how = replace(base, n=self.samples, seed=self.seed, prompt_keys=keys)
        groups = generated(self.backend, [p.ids for p in some], how, self.policy)
        found = {p.index: group for p, group in zip(some, groups, strict=True)}
        return [
            _said(w, sample, prompt.text, found[w.index][sample] if w.index in found else None)
            for w, prompt in zip(wanted, prompts, strict=True)
            for sample in w.samples
        ]


def _said(wanted: Wanted, sample: int, prompt: str, completion: Completion | None) -> Said:
    if completion is None:
        return Said(wanted, sample, prompt, None)
    text = SampledResponse.after(prompt, completion)
    return Said(wanted, sample, prompt, text, completion.finish_reason)


@dataclass(frozen=True, slots=True)
class EndpointTeacher:
    """Sends the rendered prompt as a user's message, or the messages of a chat template."""

    endpoint: Endpoint
    template: PromptTemplate

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Close the connections however the block ends."""
        try:
            yield
        finally:
            self.endpoint.close()

    def said(self, wanted: Sequence[Wanted]) -> list[Said]:
        """Return the responses wanted; None for those that could not be had."""
        each = [(w, s, self._prompt(w.example)) for w in wanted for s in w.samples]
        replies = self.endpoint.ask_all(
            [prompt for _, _, prompt in each],
            stop=tuple(self.template.stop),
            samples=[sample for _, sample, _ in each],
        )
        return [
            Said(w, sample, written(prompt), reply, reply.finish_reason if reply else "")
            for (w, sample, prompt), reply in zip(each, replies, strict=True)
        ]

    def _prompt(self, example: Example) -> Text:
        template: Any = self.template
        if isinstance(template, Converses):
            return [dict(m) for m in ask("prompt template", template, template.messages, example)]
        text: str = ask("prompt template", template, template.render, example.question)
        return text


def written(prompt: Text) -> str:
    """Return what was asked as one text."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(str(message.get("content", "")) for message in prompt)


Teacher = PolicyTeacher | EndpointTeacher
