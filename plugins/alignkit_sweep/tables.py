"""The contents of a sweep file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from alignkit.component import Params
from alignkit_sweep.stop import StopTable


class SharedTable(Params[Any]):
    """Keys of the top of a sweep file and of each of its variants."""

    recipe: str = ""
    """Recipe file, relative to the file that names it; ``alignkit:recipes/…`` for ours."""
    overlays: Annotated[tuple[str, ...], Field(strict=False, alias="with")] = ()
    """TOML files laid over the recipe."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**64)], ...], Field(strict=False)] = ()
    """One run for each; none = one run with the recipe's own seed."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Values laid over the recipe and the overlays, those of the command line included."""
    grid: dict[str, Any] = Field(default_factory=dict)
    """Arrays of values; one variant for each combination."""
    factors: dict[str, Any] = Field(default_factory=dict)
    """Arrays of factors by which the recipe's own value is multiplied, so that a sweep keeps its
    meaning at another scale."""
    same_as: dict[str, Any] = Field(default_factory=dict)
    """Keys that take the recipe's value of another key, such as ``"rollout.max_tokens"``."""


class VariantTable(SharedTable):
    """Keys of a variant; they replace those of the top, except ``set``, which adds to it."""

    best_of: str | None = None
    """Take over the settings of the best variant of this table, which comes earlier in the file."""
    start_from: str | None = None
    """Begin with the final weights of the best variant of this table (``policy.path``)."""


class SweepTable(SharedTable):
    """A sweep file."""

    about: str = ""
    """What is compared, and what to look for."""
    metric: str = "eval/answer_reward"
    """What decides which variant is best: its last value, the mean over seeds."""
    goal: Literal["max", "min"] = "max"
    """Whether a larger or smaller ``metric`` is better."""
    max_hours: Annotated[float, Field(gt=0)] | None = None
    """Wall-clock hours a run may take before it is stopped."""
    stop: StopTable | None = None
    """Without this table no run is stopped as diverged."""
    variants: dict[str, VariantTable] = Field(default_factory=dict)
