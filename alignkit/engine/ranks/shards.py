"""Models of which an optimizer updates something else than their own weights.

They are cut over the ranks, each having a part, or have float32 masters. Known here without
``torch.distributed``: a run of one process cuts nothing, and never loads it.
See :mod:`alignkit.engine.ranks.cutting`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

T = TypeVar("T")

PARTS = "parts"
"""Folder in a checkpoint for the files in which each rank writes its parts of tensors."""


class Shards(Protocol):
    """What is updated in place of a model's weights. All ranks call the same methods in order.

    A *part* is what this rank updates for a tensor: consecutive rows of it, maybe none, or its
    master (see :mod:`alignkit.engine.learning.masters`).
    """

    @property
    def whole(self) -> nn.Module:
        """The model, or a copy on every rank with the weights of the last :meth:`gather`."""
        ...

    def parts(self) -> list[nn.Parameter]:
        """Return this rank's parts of the trained parameters, in the model's order."""
        ...

    def collect(self) -> None:
        """Give each part its gradient, summed over the ranks; zeros where there is none."""
        ...

    def norm(self, own: Tensor) -> Tensor:
        """Return the norm of whole gradients, () float64, from that of this rank's parts."""
        ...

    def shown(self) -> AbstractContextManager[None]:
        """Show an optimizer the parts in the model's places while the block runs."""
        ...

    def settle(self) -> None:
        """Bring the model's weights to the parts, which an optimizer has just updated."""
        ...

    def gather(self) -> None:
        """Copy the present weights into ``whole``."""
        ...

    def within(self, work: Callable[[nn.Module], T]) -> T:
        """Return ``work(model)``, in which the weights outside the layers are whole."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Return the trained parameters; those that are cut as DTensors."""
        ...

    def load(self, name: str, value: Tensor) -> bool:
        """Take this rank's part of a trained parameter, given whole or as a DTensor.

        False if there is none of that name.
        """
        ...

    def blank(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return a tensor on the CPU, as :meth:`weights` has them, to be filled."""
        ...

    def whole_state(self, optimizer: Any) -> dict[str, Any]:
        """Return an optimizer's ``state_dict``, with DTensors in place of parts."""
        ...

    def parted_state(self, optimizer: Any, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return a ``state_dict`` of whole tensors or DTensors with this rank's parts."""
        ...


CUT: WeakKeyDictionary[nn.Module, Shards] = WeakKeyDictionary()


def layers_of(model: nn.Module) -> list[nn.Module]:
    """Return the modules that transformers says belong together, in their order."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def updated_of(model: nn.Module) -> Shards | None:
    """Return what is updated in place of the weights of ``model``; None if they are themselves."""
    return CUT.get(model)


def shards_of(model: nn.Module) -> Shards | None:
    """Return how ``model`` is cut over the ranks; None if it is not."""
    found = CUT.get(model)
    return None if found is None or found.whole is model else found


def whole_of(model: nn.Module) -> nn.Module:
    """Return a module with all weights of ``model`` on this rank: itself, if it is not cut."""
    shards = CUT.get(model)
    return shards.whole if shards else model


def is_cut(tensor: Tensor) -> bool:
    """Whether it is a DTensor, of which this rank has a part."""
    return hasattr(tensor, "placements")


def own_part(tensor: Tensor) -> Tensor:
    """Return what this rank has of a tensor."""
    return cast("DTensor", tensor).to_local() if is_cut(tensor) else tensor


def within(model: nn.Module, work: Callable[[nn.Module], T]) -> T:
    """Return ``work(model)``; a model that is cut gathers what lies outside its layers before."""
    shards = CUT.get(model)
    return shards.within(work) if shards else work(model)
