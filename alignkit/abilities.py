"""Abilities that a component may offer beyond its kind, and whether one does.

For an ability that replaces a plain method ``isinstance`` is not enough: a subclass may override
only the plain method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeGuard, runtime_checkable

from alignkit.protocols import Judges, Streams

if TYPE_CHECKING:
    from torch import nn


How = Literal["auto", "replicate", "shard"]
"""How several ranks hold a policy: all of it each, or a part each; "auto" goes by its size."""


@runtime_checkable
class Looks(Protocol):
    """An optimizer that treats weights according to the part of the model they belong to."""

    def look(self, model: nn.Module, /) -> None:
        """Take note of the model; called once, before ``start`` receives its parameters."""
        ...


@runtime_checkable
class TakesShards(Protocol):
    """An optimizer that says whether it can be given parts of tensors."""

    @property
    def on_shards(self) -> bool:
        """Whether it treats every number by itself: parts of a tensor change as in the whole."""
        ...


@runtime_checkable
class Parallel(Protocol):
    """A policy, or its parameters, that says how several ranks hold it."""

    @property
    def parallel(self) -> How:
        """How each rank holds it."""
        ...


@runtime_checkable
class TakesCards(Protocol):
    """A rollout backend's parameters that ask for GPUs beside the policy's."""

    @property
    def cards(self) -> int:
        """How many."""
        ...


@runtime_checkable
class StartsTogether(Protocol):
    """A rollout backend's parameters that say whether ranks share what the backend starts.

    Then ``start`` and ``sync`` need all ranks at the same time. A judge's backend is started by
    each rank when it first has something to judge, so it cannot be one of these.
    """

    @property
    def together(self) -> bool:
        """Whether they share it."""
        ...


@runtime_checkable
class OnlyScores(Protocol):
    """A policy's parameters that say whether it gives log-probs alone, and cannot be trained."""

    @property
    def only_scores(self) -> bool:
        """Whether it is a teacher or a reference behind a server, for instance."""
        ...


@runtime_checkable
class NamesTemplate(Protocol):
    """Parameters of a policy that know its chat template before the policy is built."""

    def chat_template(self) -> str | None:
        """Return the template, "" if the tokenizer has none, None if that is not known."""
        ...


@runtime_checkable
class TakesTemplate(Protocol):
    """Parameters of a prompt that is written by the chat template of the policy's tokenizer."""

    def template_problem(self, template: str, /) -> str:
        """Return why prompts cannot be written by this template, "" if they can."""
        ...


def parallel_of(policy: object) -> How:
    """Return how several ranks hold a policy, also given its parameters; whole by default."""
    return policy.parallel if isinstance(policy, Parallel) else "replicate"


def only_scores(params: object) -> bool:
    """Whether a policy gives log-probs alone, by its parameters or their class."""
    return isinstance(params, OnlyScores) and bool(params.only_scores)


def judges(reward: object) -> TypeGuard[Judges]:
    """Whether ``submit`` may be used instead of calling ``reward``."""
    return _stands_in(reward, "submit", "__call__")


def streams(backend: object) -> TypeGuard[Streams]:
    """Whether ``stream`` may be used instead of ``generate`` of ``backend``."""
    return _stands_in(backend, "stream", "generate")


def _stands_in(component: object, offered: str, plain: str) -> bool:
    """Whether no subclass of the class that offers the ability overrides only the plain method.

    If a subclass or a delegating wrapper changes the plain method, that method must be called,
    whatever else it inherits.
    """
    for kind in type(component).__mro__:
        if offered in vars(kind):
            return True
        if plain in vars(kind):
            return False
    return False
