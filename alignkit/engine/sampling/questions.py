"""Questions as the policy reads them, in epochs that a checkpoint can go on with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alignkit.engine.asking import ask
from alignkit.engine.seeds import shuffled
from alignkit.engine.tokens import encode_prompt
from alignkit.errors import AlignkitError
from alignkit.protocols import Dataset, Example, Policy, PromptTemplate


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
    """``text`` tokenized, after the policy's beginning-of-sequence token if it has one."""


def make_prompt(
    key: int, index: int, example: Example, template: PromptTemplate, policy: Policy
) -> Prompt:
    """Render and tokenize one question."""
    text = ask("prompt template", template, template.render, example.question)
    return Prompt(key, index, example, text, encode_prompt(policy, text))


def example_at(data: Dataset, index: int) -> Example:
    """Return one row of a dataset."""
    return ask("dataset", data, data.__getitem__, index)


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
        return make_prompt(key, index, example_at(self._data, index), self._template, self._policy)
