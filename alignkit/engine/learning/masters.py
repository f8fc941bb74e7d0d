"""Weights in 16 bits for forward and backward passes, with float32 masters that are updated.

Mixed precision as in Micikevicius et al. 2018, arXiv:1710.03740, section 3.1: a small update is
lost in a weight of 8 bits' precision and kept in its master. Each gradient is added to its master's
in float32 as soon as it is there, so micro-batches add up without rounding in between, and no
second copy of it stays. Beside autocast of float32 weights: no weight is cast in a pass, and what
lies between the products of matrices is in 16 bits too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import ref

import torch
from torch import Tensor, nn

from alignkit.engine.ranks import here
from alignkit.engine.ranks.shards import CUT

T = TypeVar("T")


def keep_masters(model: nn.Module, dtype: torch.dtype = torch.bfloat16) -> None:
    """Turn the trained weights of ``model`` to ``dtype``; an optimizer updates what they were."""
    CUT[model] = Masters(model, dtype)


class Masters:
    """The weights an optimizer updates, by the names of those a model computes with.

    See :class:`alignkit.engine.ranks.shards.Shards`: every rank has all of them.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self._model = ref(model)  # the table that has this by its model keeps no model alive
        self._masters: dict[str, nn.Parameter] = {}
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                master = nn.Parameter(weight.detach().clone())
                self._masters[name] = master
                weight.data = weight.data.to(dtype)
                hook: Any = weight.register_post_accumulate_grad_hook
                hook(_adding_to(master))

    @property
    def whole(self) -> nn.Module:
        """The model, which holds all weights on every rank."""
        model = self._model()
        assert model is not None, "the model of these masters is gone"
        return model

    def parts(self) -> list[nn.Parameter]:
        """Return the masters, in the model's order."""
        return list(self._masters.values())

    def collect(self) -> None:
        """Add up the masters' gradients over the ranks; zeros where there is none."""
        for master in self.parts():
            if master.grad is None:
                master.grad = torch.zeros_like(master)
        here().add([master.grad for master in self.parts() if master.grad is not None])

    def norm(self, own: Tensor) -> Tensor:
        """Return ``own``: every rank has whole gradients."""
        return own

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Put the masters in their weights' places while the block runs."""
        weights = self._weights()
        own = {id(weight): self._masters[name] for name, weight in weights.items()}
        places = [
            (module._parameters, key, weight)
            for module in self.whole.modules()
            for key, weight in module._parameters.items()
            if id(weight) in own
        ]
        for table, key, weight in places:
            table[key] = own[id(weight)]
        try:
            yield
        finally:
            for table, key, weight in places:
                table[key] = weight

    @torch.no_grad()
    def settle(self) -> None:
        """Round the masters to the weights that the model computes with."""
        weights = self._weights()
        torch._foreach_copy_(list(weights.values()), [self._masters[name] for name in weights])

    def gather(self) -> None:
        """Do nothing: the model's weights are those of the last :meth:`settle`."""

    def within(self, work: Callable[[nn.Module], T]) -> T:
        """Return ``work(model)``."""
        return work(self.whole)

    def weights(self) -> dict[str, Tensor]:
        """Return the masters."""
        return {name: master.detach() for name, master in self._masters.items()}

    @torch.no_grad()
    def load(self, name: str, value: Tensor) -> bool:
        """Take over a master, and its weight; False if there is none of that name."""
        master = self._masters.get(name)
        if master is not None:
            master.copy_(value)
            self._weights()[name].copy_(value)
        return master is not None

    def blank(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return a whole tensor."""
        return torch.empty(tuple(shape), dtype=dtype)

    def whole_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the optimizer's state."""
        return optimizer.state_dict()

    def parted_state(
        self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return ``state``."""
        return dict(state)

    def _weights(self) -> dict[str, Tensor]:
        named = self.whole.named_parameters()
        return {name: weight for name, weight in named if name in self._masters}


def _adding_to(master: nn.Parameter) -> Callable[[Tensor], None]:
    """Return what adds a weight's gradient to its master's, and takes it from the weight."""

    def add(weight: Tensor) -> None:
        assert weight.grad is not None
        if master.grad is None:
            master.grad = weight.grad.to(master.dtype)
        else:
            master.grad.add_(weight.grad)
        weight.grad = None

    return add
