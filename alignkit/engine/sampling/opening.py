"""How episodes of an environment begin: the same within a group. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from alignkit.dialogues import ChatFormat, Converses, Message
from alignkit.engine.asking import ask
from alignkit.episodes import Begins, Episode, Offers
from alignkit.protocols import Environment, Example, PromptTemplate

ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Beginning:
    """What an episode begins with, before a template."""

    text: str
    messages: tuple[Message, ...] = ()
    """What a chat template writes in place of the text, if the episode gives it."""

    def __str__(self) -> str:
        return "\n".join(
            [self.text, *(f"{m.get('role')}: {m.get('content')}" for m in self.messages)]
        )


NOTHING = Beginning("")


@dataclass(frozen=True, slots=True)
class Opening:
    """An environment whose episodes are drawn by a seed of the run or of an evaluation set."""

    environment: Environment
    template: PromptTemplate | None
    """Renders what episodes begin with; None = that is the prompt itself."""
    seed: int

    def __post_init__(self) -> None:
        """Have a chat template show the environment's tools, too."""
        if isinstance(self.environment, Offers) and isinstance(self.template, Converses):
            tools = ask(
                ENVIRONMENT, self.environment, lambda world: tuple(world.tools), self.environment
            )
            object.__setattr__(self, "template", WithTools(self.template, tools))

    @property
    def stop(self) -> Sequence[str]:
        """Strings that end a turn: the environment's, then the template's."""
        return (*self.environment.stop, *(self.template.stop if self.template else ()))

    def episode(self, example: Example, key: int) -> Episode:
        """Open an episode; those of one example and prompt key share its seed."""
        world = self.environment
        return ask(ENVIRONMENT, world, world.open, example, seed=number(self.seed, "seed", key))

    def first(self, example: Example, key: int) -> Beginning:
        """Return what such episodes begin with."""
        episode = self.episode(example, key)
        try:
            return self.said(episode)
        finally:
            ask(ENVIRONMENT, self.environment, episode.close)

    def said(self, episode: Episode) -> Beginning:
        """Return what an episode begins with."""
        return ask(ENVIRONMENT, self.environment, _beginning, episode)


def _beginning(episode: Episode) -> Beginning:
    messages = tuple(episode.messages) if isinstance(episode, Begins) else ()
    return Beginning(episode.prompt, messages)


@dataclass(frozen=True, slots=True)
class WithTools:
    """A chat template that shows further tools, behind its own."""

    inner: Any
    """A ``PromptTemplate`` that ``Converses``."""
    tools: tuple[Mapping[str, Any], ...]

    @property
    def form(self) -> ChatFormat:
        """How the dialogues are written."""
        form: ChatFormat = self.inner.form
        return replace(form, tools=(*form.tools, *self.tools))

    @property
    def stop(self) -> Sequence[str]:
        """Strings that end a turn."""
        return tuple(self.inner.stop)

    def messages(self, example: Example, /) -> Sequence[Message]:
        """Return the dialogue of an example."""
        return tuple(self.inner.messages(example))

    def render(self, question: str) -> str:
        """Return the question as text."""
        return str(self.inner.render(question))


def number(*name: int | str) -> int:
    """Return the whole number from 0 to 2**63 - 1 that ``name`` stands for."""
    text = "/".join(map(str, name))
    return int.from_bytes(sha256(text.encode()).digest()[:8]) >> 1
