"""Dialogues: their messages, how they are written, and abilities of components that use them.

An :class:`~alignkit.protocols.Example` holds one in ``messages``. As in ``alignkit.protocols``,
callers check for an ability with ``isinstance``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from alignkit.protocols import Completion, Example, Response

Message: TypeAlias = Mapping[str, Any]
"""One message of a dialogue, as chat templates take it: ``role``, ``content`` and any other keys
(``tool_calls``, ``reasoning_content``, ...)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFormat:
    """How dialogues are written: the arguments of a tokenizer's chat template."""

    tools: tuple[Mapping[str, Any], ...] = ()
    """JSON schemas of the tools that are shown to the policy."""
    thinking: bool | None = None
    """Sets the template's switch for thinking; None leaves it at its default."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the template."""
    template: str | None = None
    """A Jinja template to use instead of the tokenizer's own."""


@runtime_checkable
class Converses(Protocol):
    """A prompt template whose prompts are dialogues, written by the tokenizer's chat template.

    If a template offers this, ``render`` is not called during a run.
    """

    @property
    def form(self) -> ChatFormat:
        """How the dialogues are written."""
        ...

    def messages(self, example: Example, /) -> Sequence[Message]:
        """Return the dialogue of an example, including the assistant's last turn if there is one.

        The policy is prompted with the messages before that turn.
        """
        ...


@runtime_checkable
class Ends(Protocol):
    """A policy to which further ids that end a response can be added."""

    def end_at(self, ids: Iterable[int], /) -> None:
        """Add them to ``eos_ids``, and to what is saved; call it before anything is sampled."""
        ...


class SampledResponse(Response):
    """A response that separates what a thinking model thought from what it answered."""

    opened: bool = False
    """Whether the prompt ended in ``<think>``, so that the response begins within the thought."""

    @classmethod
    def after(cls, prompt: str, completion: Completion) -> SampledResponse:
        """Return the text of a completion that was sampled after ``prompt``."""
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
        """What a reader sees: everything but the thought, "" if the thought did not end."""
        return self._halves()[1]

    def _halves(self) -> tuple[str, str]:
        text = self.lstrip()
        if not self.opened and not text.startswith("<think>"):
            return "", str(self)
        thought, _, answer = text.removeprefix("<think>").partition("</think>")
        return thought.strip(), answer.lstrip()
