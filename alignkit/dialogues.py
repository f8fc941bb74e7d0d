"""Dialogues: their messages, how they are written, and what components may offer for them.

An :class:`~alignkit.protocols.Example` holds one in ``messages``. As in ``alignkit.protocols``,
what uses an ability asks for it with ``isinstance``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from alignkit.protocols import Completion, Example, Response

Message: TypeAlias = Mapping[str, Any]
"""One message of a dialogue, as chat templates take it: ``role``, ``content`` and what else it has
(``tool_calls``, ``reasoning_content``, ...)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFormat:
    """How dialogues are written: what a tokenizer's chat template is called with."""

    tools: tuple[Mapping[str, Any], ...] = ()
    """JSON schemas of the tools that are shown to the policy."""
    thinking: bool | None = None
    """Sets the template's switch for thoughts; None leaves it alone."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the template."""
    template: str | None = None
    """A Jinja template to use instead of the tokenizer's own."""


@runtime_checkable
class Converses(Protocol):
    """A prompt template whose prompts are dialogues, written by the tokenizer's chat template.

    Where it is offered, ``render`` is not called during a run.
    """

    @property
    def form(self) -> ChatFormat:
        """How the dialogues are written."""
        ...

    def messages(self, example: Example, /) -> Sequence[Message]:
        """Return the dialogue of an example, the assistant's last turn included where it has it.

        The policy is prompted with the messages before that turn.
        """
        ...


@runtime_checkable
class Ends(Protocol):
    """A policy that can be told of further ids that end a response."""

    def end_at(self, ids: Iterable[int], /) -> None:
        """Add them to ``eos_ids``, also in what is saved; before anything is sampled."""
        ...


class SampledResponse(Response):
    """A response that tells what a thinking model thought from what it answered."""

    opened: bool = False
    """Whether the prompt ended in ``<think>``, so that the response begins within the thought."""

    @classmethod
    def after(cls, prompt: str, completion: Completion) -> SampledResponse:
        """Return the text of a completion that was sampled after the text ``prompt``."""
        made = cls(completion.text)
        made.completion = completion
        made.opened = prompt.rstrip().endswith("<think>")
        return made

    @property
    def thought(self) -> str:
        """What a thinking model wrote up to ``</think>``, "" where it did not think."""
        return self._halves()[0]

    @property
    def answer(self) -> str:
        """What a reader sees: all but the thought, "" while that is not ended."""
        return self._halves()[1]

    def _halves(self) -> tuple[str, str]:
        text = self.lstrip()
        if not self.opened and not text.startswith("<think>"):
            return "", str(self)
        thought, _, answer = text.removeprefix("<think>").partition("</think>")
        return thought.strip(), answer.lstrip()
