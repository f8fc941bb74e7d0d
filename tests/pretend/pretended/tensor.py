"""A tensor that says it is on ``cuda:0`` and keeps its values in the CPU's memory.

What a CPU run cannot show: operations on tensors of two devices, host-device syncs, copies out
of memory that is not pinned, what a CUDA graph cannot record.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing

from pretended import roofline, shapes, syncs, varlen
from pretended.graphs import recorded
from pretended.memory import HELD, PINNED

CUDA = torch.device("cuda:0")
aten = torch.ops.aten

KERNELS: dict[Any, Callable[..., Any]] = {}
"""What computes an operation on the device instead of the CPU's kernel, by the operation."""

_SIZE_UNKNOWN = {
    aten.nonzero.default, aten.masked_select.default, aten._unique2.default,
    aten.unique_dim.default, aten.unique_consecutive.default, aten.bincount.default,
    aten.equal.default, aten.repeat_interleave.Tensor,
}  # fmt: skip
"""Operations whose result the host has to see before it goes on."""

_INDEXED = {
    aten.index.Tensor, aten.index_put.default, aten.index_put_.default,
    aten._index_put_impl_.default,
}  # fmt: skip


class DeviceTensor(torch.Tensor):
    """Says it is on ``cuda:0``; ``held`` has the values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> DeviceTensor:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=CUDA,
        )

    def __init__(self, held: Tensor) -> None:
        assert type(held) is Tensor, f"a {type(held).__name__} within a tensor of the device"
        self.held = held
        HELD.add(held)

    def __repr__(self) -> str:
        return f"DeviceTensor({self.held})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            new: Tensor = DeviceTensor(copy.deepcopy(self.held))
            if isinstance(self, torch.nn.Parameter):
                new = torch.nn.Parameter(new, self.requires_grad)
            memo[id(self)] = new.requires_grad_(self.requires_grad)
        return memo[id(self)]

    # Without these two, Module.to would put the values of a tensor like this one in a parameter,
    # instead of the tensor itself in the parameter's place.

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: Any) -> DeviceTensor:
        return DeviceTensor(inner["held"])

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        return dispatch(func, args, kwargs or {})


def dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do one operation, wherever its tensors are."""
    special = _SPECIAL.get(func)
    found = _computed(func, args, kwargs) if special is None else special(func, args, kwargs)
    roofline.note(
        func, filter(here, [*_tensors(args), *_tensors([*kwargs.values()])]), args, found, here
    )
    return found


def here(x: Any) -> bool:
    """Whether ``x`` is a tensor on the device."""
    return isinstance(x, DeviceTensor)


def plain(x: Any) -> Any:
    """Return what a tensor of the device holds; anything else as it is."""
    return x.held if here(x) else x


def mapped(change: Callable[[Any], Any], x: Any) -> Any:
    """Return the arguments or results ``x`` of an operation, each tensor or value changed."""
    if isinstance(x, (tuple, list)):
        return type(x)([mapped(change, y) for y in x])
    if isinstance(x, dict):
        return {k: mapped(change, v) for k, v in x.items()}
    return change(x)


def _tensors(x: Any) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, (tuple, list)):
        for y in x:
            yield from _tensors(y)


def _on_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


# ---------------------------------------------------------------- copies


def _to_copy(func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """Copy to another type or device; the host waits unless pinned memory lets it go on."""
    (source,) = args
    given = {k: v for k, v in kwargs.items() if k not in ("device", "non_blocking", "pin_memory")}
    target = torch.device(kwargs.get("device") or source.device)
    if here(source) and target.type != "cuda" and not kwargs.get("non_blocking"):
        syncs.note("device to host")
    if not here(source) and target.type == "cuda":
        _note_upload(source, bool(kwargs.get("non_blocking")))
    if here(source) and plain(source).is_meta and target.type != "cuda":
        return shapes.on_host(plain(source), given.get("dtype"))
    found = func(plain(source), **given)
    if shapes.active() and target.type == "cuda":
        return DeviceTensor(shapes.hollow(found))
    if here(source) != (target.type == "cuda"):
        found = found.clone()  # another memory, though the type is the same
    elif here(source):
        recorded(func, (source.held,), given, found)
    return DeviceTensor(found) if target.type == "cuda" else found


def _copy(func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    target, source = args[:2]
    goes_on = bool(args[2]) if len(args) > 2 else bool(kwargs.get("non_blocking"))
    if here(target) and not here(source):
        _note_upload(source, goes_on)
    elif here(source) and not here(target) and not goes_on:
        syncs.note("device to host")
    if not (plain(target).is_meta or plain(source).is_meta):
        func(plain(target), plain(source))
    if here(target) and here(source):
        recorded(func, (target.held, source.held), {}, target.held)
    return target


def _note_upload(source: Tensor, goes_on: bool) -> None:
    if not (goes_on and source in PINNED):
        syncs.note("host to device")


def _item(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if here(args[0]):
        syncs.note("item")
    held = plain(args[0])
    return shapes.number(held) if held.is_meta else func(held)


def _pin(func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    PINNED.add(args[0])
    return args[0]


def _is_pinned(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    return not here(args[0]) and args[0] in PINNED


_SPECIAL: dict[Any, Callable[[Any, Any, dict[str, Any]], Any]] = {
    aten._to_copy.default: _to_copy,
    aten.copy_.default: _copy,
    aten._local_scalar_dense.default: _item,
    aten._pin_memory.default: _pin,
    aten.is_pinned.default: _is_pinned,
}


# ---------------------------------------------------------------- all else


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute on what the tensors hold; the result is on the device if they are, or asked for."""
    tensors = [*_tensors(args), *_tensors([*kwargs.values()])]
    ours = [x for x in tensors if here(x)]
    device, pinned = kwargs.get("device"), kwargs.get("pin_memory")
    lands = _on_cuda(device) if device is not None else bool(ours)
    if ours:
        _refuse_two_devices(func, tensors)
        _note_waiting(func, args)
    if ours or lands:
        _refuse_generator(kwargs.get("generator"))
    given = {k: v for k, v in kwargs.items() if k != "pin_memory"}
    if _on_cuda(device):
        given["device"] = torch.device("cpu")
    args_, kwargs_ = mapped(plain, args), mapped(plain, given)
    found = _of_values(func, args_, kwargs_, lands)
    if not lands:
        if pinned:
            PINNED.add(found)
        return found
    recorded(func, args_, kwargs_, found)
    wrapped = mapped(lambda x: DeviceTensor(x) if type(x) is Tensor else x, found)
    if ours and func.namespace in ("aten", "prims"):
        return return_and_correct_aliasing(func, args, kwargs, wrapped)
    return wrapped


def _of_values(func: Any, args: Any, kwargs: dict[str, Any], lands: bool) -> Any:
    """Compute on plain tensors; floats of the device may have no values, see ``shapes``."""
    if any(x.is_meta for x in [*_tensors(args), *_tensors([*kwargs.values()])]):
        if kwargs.get("device") == torch.device("cpu"):
            kwargs = {**kwargs, "device": torch.device("meta")}
        found = shapes.computed(func, args, kwargs, mapped)
        return (
            found
            if lands
            else mapped(lambda x: shapes.on_host(x, None) if type(x) is Tensor else x, found)
        )
    found = KERNELS.get(func, func)(*args, **kwargs)
    return mapped(shapes.hollow, found) if lands and shapes.active() else found


def _refuse_two_devices(func: Any, tensors: Iterable[Tensor]) -> None:
    apart = [tuple(x.shape) for x in tensors if not here(x) and x.dim()]
    if apart and func not in _INDEXED:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, "
            f"cuda:0 and cpu! ({func}, on the cpu: {apart})"
        )


def _refuse_generator(generator: Any) -> None:
    if generator is not None and generator.device.type != "cuda":
        raise RuntimeError(
            f"Expected a 'cuda' device type for generator but found '{generator.device}'"
        )


def _note_waiting(func: Any, args: Any) -> None:
    if func in _SIZE_UNKNOWN:
        syncs.note(func._schema.name.removeprefix("aten::"))
    if func in _INDEXED:
        indices = [i for i in args[1] if isinstance(i, Tensor)]
        if any(i.dtype == torch.bool for i in indices):
            syncs.note("index by a mask")
        if not all(map(here, indices)):
            syncs.note("index from the host")


def _wide_product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """Multiply in 16 bits, add up and return in ``dtype``."""
    return a.to(dtype) @ b.to(dtype)


def _wide_sum(
    total: Tensor, a: Tensor, b: Tensor, dtype: torch.dtype, *, out: Tensor, **_: Any
) -> Tensor:
    """Add a product of 16-bit matrices to ``total``, in ``dtype``, and write that to ``out``."""
    return out.copy_(total + _wide_product(a, b, dtype))


def _set_kernels() -> None:
    from torch.nn.attention import varlen as _  # noqa: F401 - it registers the operations

    KERNELS[aten.mm.dtype] = _wide_product
    KERNELS[aten.addmm.dtype_out] = _wide_sum
    ops = torch.ops.torch_attn
    KERNELS[ops._varlen_attn.default] = varlen.forward
    KERNELS[ops._varlen_attn_backward.default] = varlen.backward


_set_kernels()
