"""Cut a model over the ranks by FSDP2, a part of every layer on each (``fully_shard``).

A layer's weights are gathered when it computes and dropped after it; its gradients are added up
where their rows are held, 16-bit ones in float32. On several nodes each node holds a whole model,
and gradients are added over the nodes as well (hybrid sharding).

Optimizers get this rank's parts as ordinary tensors. So they must treat every number by itself,
which those do that declare ``on_shards``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MethodType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from alignkit.engine.ranks import here
from alignkit.engine.ranks.shards import CUT, is_cut, layers_of, own_part

T = TypeVar("T")

ENTRY = "alignkit_within"
"""Name of the method by which work enters a model that is cut."""


def cut(model: nn.Module, whole: nn.Module) -> None:
    """Cut ``model`` over the ranks; ``whole`` is a copy that every rank keeps.

    The parts get memory of their own, so ``whole`` may have the model's.
    """
    mesh = _mesh(next(model.parameters()).device.type)
    narrow = next(model.parameters()).dtype.itemsize < 4
    how = MixedPrecisionPolicy(reduce_dtype=torch.float32 if narrow else None)
    for module in layers_of(model):
        fully_shard(module, mesh=mesh, mp_policy=how)
    fully_shard(model, mesh=mesh, mp_policy=how)
    for module in model.modules():
        if isinstance(module, FSDPModule):  # sums, as losses are divided by the whole step's counts
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    setattr(model, ENTRY, MethodType(lambda self, work: work(self), model))
    register_fsdp_forward_method(model, ENTRY)
    CUT[model] = FullyShards(model, whole, mesh)


def _mesh(device: str) -> DeviceMesh:
    """Return the ranks in a line, or as nodes by ranks of a node if there are several nodes."""
    size = here().size
    local = int(os.environ.get("LOCAL_WORLD_SIZE") or size)
    if 1 < local < size and size % local == 0:
        names = ("nodes", "ranks")
        return init_device_mesh(device, (size // local, local), mesh_dim_names=names)
    return init_device_mesh(device, (size,))


class FullyShards:
    """See :class:`alignkit.engine.ranks.shards.Shards`."""

    def __init__(self, model: nn.Module, whole: nn.Module, mesh: DeviceMesh) -> None:
        self.whole = whole
        self._model, self._copies = model, mesh.size(0) if mesh.ndim == 2 else 1
        self._parts: dict[str, nn.Parameter] = {}
        self._meshes = {mesh.device_type: mesh}

    def _trained(self) -> dict[str, DTensor]:
        named = self._model.named_parameters()
        return {name: cast(DTensor, p) for name, p in named if p.requires_grad}

    def parts(self) -> list[nn.Parameter]:
        """Return this rank's parts of the trained parameters; they share the model's memory."""
        self._parts = {n: nn.Parameter(p.to_local().detach()) for n, p in self._trained().items()}
        return list(self._parts.values())

    def collect(self) -> None:
        """Give each part its gradient, and take it from the model."""
        for name, parameter in self._trained().items():
            grad, part = cast("DTensor | None", parameter.grad), self._parts[name]
            part.grad = torch.zeros_like(part) if grad is None else grad.to_local()
            parameter.grad = None

    def norm(self, own: Tensor) -> Tensor:
        """Return the norm of whole gradients."""
        total = own.double().square()
        here().add([total])
        return (total / self._copies).sqrt()

    def shown(self) -> AbstractContextManager[None]:
        """Show the model as it is."""
        return nullcontext()

    def settle(self) -> None:
        """Do nothing: the parts share the model's memory."""

    @torch.no_grad()
    def gather(self) -> None:
        """Copy the present weights into ``whole``."""
        own = self.whole.state_dict()
        with here().guarded():
            for name, value in self._model.state_dict().items():
                own[name].copy_(value.full_tensor() if isinstance(value, DTensor) else value)

    def within(self, work: Callable[[nn.Module], T]) -> T:
        """Return ``work(model)``."""
        found: T = getattr(self._model, ENTRY)(work)
        return found

    def weights(self) -> dict[str, Tensor]:
        """Return the trained parameters, cut as they are."""
        return {name: p.detach() for name, p in self._trained().items()}

    @torch.no_grad()
    def load(self, name: str, value: Tensor) -> bool:
        """Take this rank's part of a trained parameter."""
        known = self._trained().get(name)
        if known is not None:
            known.to_local().copy_(self._part(name, value))
        return known is not None

    def blank(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return a tensor on the CPU that is cut as the model's are."""
        like = next(iter(self._trained().values()))
        whole = torch.Size(shape)
        own, _ = compute_local_shape_and_global_offset(whole, like.device_mesh, like.placements)
        return self._spread(torch.empty(own, dtype=dtype), whole)

    def _part(self, name: str, tensor: Tensor) -> Tensor:
        """Return this rank's part of a tensor that every rank has, or that is cut as the model."""
        if is_cut(tensor):
            return own_part(tensor)
        like = self._trained()[name]
        there = tensor.to(like.device_mesh.device_type)
        cut_up = distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)
        return cut_up.to_local()

    def _spread(self, part: Tensor, whole: torch.Size) -> DTensor:
        """Return this rank's part as one of a whole tensor, on the device where it is."""
        like = next(iter(self._trained().values()))
        kind = part.device.type
        if kind not in self._meshes:
            self._meshes[kind] = _mesh(kind)
        stride = torch.empty(whole, device="meta").stride()
        return DTensor.from_local(
            part, self._meshes[kind], like.placements, run_check=False, shape=whole, stride=stride
        )

    def whole_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the optimizer's state, with each part as one of a whole tensor."""
        state, names = optimizer.state_dict(), self._names(optimizer)
        shapes = {name: p.shape for name, p in self._trained().items()}
        whole = {
            i: {
                key: self._spread(value.detach(), shapes[names[i]])
                if self._is_part(names[i], value)
                else value
                for key, value in entry.items()
            }
            for i, entry in state["state"].items()
        }
        return {**state, "state": whole}

    def parted_state(
        self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return a whole optimizer's state with this rank's parts."""
        names, trained = self._names(optimizer), self._trained()
        parted = {
            i: {
                key: self._part(names[i], value)
                if isinstance(value, Tensor) and value.shape == trained[names[i]].shape
                else value
                for key, value in entry.items()
            }
            for i, entry in state["state"].items()
        }
        return {**state, "state": parted}

    def _is_part(self, name: str, value: object) -> bool:
        return isinstance(value, Tensor) and value.shape == self._parts[name].shape

    def _names(self, optimizer: torch.optim.Optimizer) -> list[str]:
        """Return the names of the weights, in the optimizer's order."""
        known = {id(part): name for name, part in self._parts.items()}
        return [known[id(p)] for group in optimizer.param_groups for p in group["params"]]
