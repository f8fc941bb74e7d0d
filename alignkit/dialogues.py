"""Dialogues: their messages, how they are written, and what components may offer for them.

An :class:`~alignkit.protocols.Example` holds one in ``messages``. As in ``alignkit.protocols``,
what uses an ability asks for it with ``isinstance``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from alignkit.protocols import Example, Message


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
