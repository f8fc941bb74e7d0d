"""How episodes of an environment begin: alike within a group. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from alignkit.engine.asking import ask
from alignkit.episodes import Episode
from alignkit.protocols import Environment, Example, PromptTemplate

ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Opening:
    """An environment whose episodes are drawn by a seed of the run or of an evaluation set."""

    environment: Environment
    template: PromptTemplate | None
    """Renders what episodes begin with; None = it is the prompt."""
    seed: int

    @property
    def stop(self) -> Sequence[str]:
        """Strings that end a turn: the environment's, then the template's."""
        return (*self.environment.stop, *(self.template.stop if self.template else ()))

    def episode(self, example: Example, key: int) -> Episode:
        """Open an episode; those of one example and prompt key share its seed."""
        world = self.environment
        return ask(ENVIRONMENT, world, world.open, example, seed=number(self.seed, "seed", key))

    def first(self, example: Example, key: int) -> str:
        """Return what such episodes begin with, before the template."""
        episode = self.episode(example, key)
        try:
            return self.said(episode)
        finally:
            ask(ENVIRONMENT, self.environment, episode.close)

    def said(self, episode: Episode) -> str:
        """Return what an episode begins with."""
        return ask(ENVIRONMENT, self.environment, lambda: episode.prompt)


def number(*name: int | str) -> int:
    """Return the whole number from 0 to 2**63 - 1 that ``name`` stands for."""
    text = "/".join(map(str, name))
    return int.from_bytes(sha256(text.encode()).digest()[:8]) >> 1
