"""Questions as the policy reads them, in epochs that can be resumed from a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alignkit.dialogues import Converses, Message
from alignkit.engine.asking import ask
from alignkit.engine.chat import asked
from alignkit.engine.prompting import dialogue_of, prompt_of
from alignkit.engine.sampling.opening import NOTHING, Beginning, Opening
from alignkit.engine.seeds import shuffled
from alignkit.engine.tokens import encode_prompt
from alignkit.errors import AlignkitError
from alignkit.protocols import (
    Dataset,
    Example,
    Observes,
    Orders,
    Policy,
    PromptTemplate,
    Reward,
    Stateful,
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
    """``text`` tokenized, after the policy's beginning-of-sequence token if it has one; a chat
    template writes that token itself."""
    said: Beginning = NOTHING
    """In an episode: what it begins with, before the template."""
    dialogue: tuple[Message, ...] = ()
    """In an episode that a chat template writes: the messages of the prompt."""


def make_prompt(
    key: int, index: int, example: Example, template: PromptTemplate | Opening, policy: Policy
) -> Prompt:
    """Render and tokenize one question, or what an episode about it begins with."""
    if isinstance(template, Opening):
        return _begun(key, index, example, template, policy)
    text, ids = prompt_of(example, template, policy)
    return Prompt(key, index, example, text, ids)


def _begun(key: int, index: int, example: Example, opening: Opening, policy: Policy) -> Prompt:
    """Render and tokenize what an episode begins with."""
    said, template = opening.first(example, key), opening.template
    if template is None:
        return Prompt(key, index, example, said.text, encode_prompt(policy, said.text), said)
    messages = said.messages if isinstance(template, Converses) else ()
    put = replace(example, question=said.text, messages=messages)
    text, ids = prompt_of(put, template, policy)
    shown = asked(dialogue_of(put, template)) if isinstance(template, Converses) else ()
    return Prompt(key, index, example, text, ids, said, shown)


def example_at(data: Dataset, index: int) -> Example:
    """Return one row of a dataset."""
    return ask("dataset", data, data.__getitem__, index)


def fits(prompt: Prompt, policy: Policy, *, at_least: int = 1) -> bool:
    """Whether the policy can take the prompt and ``at_least`` response tokens."""
    return len(prompt.ids) + at_least <= policy.max_length


class PromptStream:
    """Questions in epochs: each is drawn once, in an order keyed by the seed, before any again.

    Data that order their questions choose them instead. ``position``, ``skipped`` and the state of
    the data, if any, are the whole state: with them, the stream can be resumed. Prompts too long
    for the policy are skipped and counted in ``skipped``.
    """

    def __init__(
        self, data: Dataset, template: PromptTemplate | Opening, policy: Policy, *, seed: int
    ) -> None:
        if len(data) == 0:
            raise AlignkitError("[data] holds no examples; there is nothing to ask the policy")
        self._data, self._template, self._policy, self._seed = data, template, policy, seed
        self._order: tuple[int, list[int]] = (-1, [])
        self.position = 0
        """Questions drawn so far, those passed over included."""
        self.skipped = 0
        """Prompts passed over so far because they leave the policy no room to answer."""

    def take(self, count: int, *, step: int) -> list[Prompt]:
        """Return the next ``count`` prompts; AlignkitError if no prompt of the data fits."""
        prompts: list[Prompt] = []
        passed_over = 0
        while len(prompts) < count:
            for prompt in self._next(count - len(prompts), step):
                if fits(prompt, self._policy):
                    prompts.append(prompt)
                    passed_over = 0
                    continue
                self.skipped += 1
                passed_over += 1
            if passed_over >= len(self._data):
                raise AlignkitError(
                    f"every prompt of [data] fills the {self._policy.max_length} tokens the policy "
                    f"takes, which leaves no room for an answer; use shorter questions, a shorter "
                    f"template or another policy"
                )
        return prompts

    def observe(self, rows: Sequence[int], rewards: Sequence[Reward]) -> None:
        """Pass one reward per response to data that observe how questions were answered."""
        if isinstance(self._data, Observes):
            ask("dataset", self._data, self._data.observe, rows, rewards)

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state."""
        own = {"data": self._data.state_dict()} if isinstance(self._data, Stateful) else {}
        return {"position": self.position, "skipped": self.skipped, **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.position, self.skipped = state["position"], state["skipped"]
        if isinstance(self._data, Stateful):
            self._data.load_state_dict(copy.deepcopy(state["data"]))

    def _next(self, count: int, step: int) -> list[Prompt]:
        """Return the next ``count`` prompts, including those that are too long."""
        if isinstance(self._data, Orders):
            places = self._chosen(self._data, count, step)
        else:
            places = [self._in_epochs(self.position + i) for i in range(count)]
        self.position += count
        return [
            make_prompt(key, index, example_at(self._data, index), self._template, self._policy)
            for key, index in places
        ]

    def _in_epochs(self, position: int) -> tuple[int, int]:
        """Return (key, row) of the question at ``position``."""
        epoch, offset = divmod(position, len(self._data))
        if self._order[0] != epoch:
            self._order = (epoch, shuffled(len(self._data), f"{self._seed}/questions/{epoch}"))
        index = self._order[1][offset]
        return epoch * len(self._data) + index, index  # a question's second epoch draws anew

    def _chosen(self, data: Orders, count: int, step: int) -> list[tuple[int, int]]:
        """Return (key, row) of the questions that the data choose; the key is the position."""
        asked = {"step": step, "position": self.position}
        rows = list(ask("dataset", data, data.choose, count, **asked))
        if len(rows) != count or not all(0 <= row < len(self._data) for row in rows):
            raise AlignkitError(
                f"[data] was asked for {count} of its {len(self._data)} rows, by choose(), and "
                f"chose {rows[:5]}{'…' if len(rows) > 5 else ''}, {len(rows)} in all"
            )
        return list(enumerate(rows, self.position))
