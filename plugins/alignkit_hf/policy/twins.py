"""Twins: models of the same structure that hold the same tensors, or some of their own instead."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor, nn

from alignkit.protocols import Adapted

if TYPE_CHECKING:
    from alignkit.protocols import Policy

M = TypeVar("M", bound=nn.Module)


def twin(model: M) -> M:
    """Return a model of the same structure on the same parameter tensors."""
    made = copy.deepcopy(model, {id(p): p for p in model.parameters()})
    nn.Module.eval(made)
    return made


def adapted_twin(base: M, weights: Iterable[tuple[str, Tensor]]) -> M:
    """Return a twin of ``base`` that has those of ``weights`` which are not the base's own."""
    made = twin(base)
    for name, value in not_of(base, weights):
        place, _, last = name.rpartition(".")
        setattr(made.get_submodule(place), last, nn.Parameter(value, requires_grad=False))
    return made


def not_of(base: nn.Module, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights, by their names in ``base``, that are not its own tensors."""
    own = base.state_dict()
    for name, value in weights:
        if value.data_ptr() != own[name].data_ptr():
            yield name, value


def adapted(policy: Policy) -> tuple[nn.Module | None, Iterable[tuple[str, Tensor]]]:
    """Return the model without the adapter that a policy trains, and all weights with it.

    The model is None, and the weights are the policy's own, where no adapter is trained.
    """
    if isinstance(policy, Adapted) and (base := policy.base) is not None:
        return base, policy.weights()
    return None, policy.model.state_dict().items()
