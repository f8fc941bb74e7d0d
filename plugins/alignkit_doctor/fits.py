"""Which of the shipped recipes and overlays fit into the memory of a card or of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alignkit import recipe
from alignkit.abilities import TakesCards
from alignkit.errors import RecipeError
from alignkit.estimate import Estimate, estimate
from alignkit.plugins import Registry
from alignkit.recipe import nodes
from alignkit.shipped import shipped

MARGIN = 0.05
"""Share of the memory that must stay free: estimates err, and allocators leave gaps."""

MODEL = "qwen2.5-math-1.5b.toml"
"""The overlay, in recipes/scale, of the model that the hardware's overlays are for."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A recipe on a device: what it needs and what is there."""

    recipe: str
    """The recipe's file, or that of the overlay laid on grpo and the model's own."""
    needs: float
    """Most bytes it needs on the policy's device."""
    has: float
    """Bytes of that device."""
    cards: int = 0
    """Cards it uses, 0 = none: it runs on the CPU."""
    enough: bool = True
    """Whether there are that many."""

    @property
    def fits(self) -> bool:
        """Whether the cards are there and it leaves a margin of memory."""
        return self.enough and self.needs <= (1 - MARGIN) * self.has


def on_cards(registry: Registry, memory: float, count: int) -> list[Fit]:
    """Return each hardware overlay of recipes/scale on ``count`` cards of ``memory`` bytes.

    One that cannot be resolved, since a plugin is left out, is not among them.
    """
    found = []
    for path in sorted((shipped() / "recipes" / "scale").glob("hardware-*.toml")):
        for told, cards in _estimates(registry, path, memory):
            found.append(Fit(path.stem, told.total, memory, cards, cards <= count))
    return found


def _estimates(registry: Registry, overlay: Path, memory: float) -> Iterator[tuple[Estimate, int]]:
    """Yield, once or not at all, what grpo takes with an overlay, and how many cards it uses."""
    grpo = shipped() / "recipes" / "grpo.toml"
    try:
        node = recipe.load(grpo, registry, [overlay.with_name(MODEL), overlay])
    except RecipeError:
        return
    told = estimate(node, memory)
    if told is not None:
        below = [found.params for child in node.children.values() for found in nodes(child)]
        yield told, 1 + sum(p.cards for p in below if isinstance(p, TakesCards))


def on_the_cpu(registry: Registry, memory: float) -> list[Fit]:
    """Return each recipe of the embedded model in ``memory`` bytes of this machine."""
    found = []
    for path in sorted((shipped() / "recipes").glob("*.toml")):
        try:
            told = estimate(recipe.load(path, registry))
        except RecipeError:
            continue
        if told is not None:
            found.append(Fit(path.stem, told.total, memory))
    return found
