"""``with pretending():`` torch finds one CUDA device, and what is asked of it works."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint
from torch.utils._python_dispatch import TorchDispatchMode

from pretended import syncs
from pretended.graphs import Graph, graph
from pretended.memory import HELD, PINNED, TOTAL
from pretended.tensor import CUDA, dispatch, here

NAME = "NVIDIA H100 80GB HBM3"


class Stream:
    """Stands in for ``torch.cuda.Stream``; all work is done when it is asked for."""

    device = CUDA

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def wait_stream(self, other: Stream) -> None: ...

    def synchronize(self) -> None:
        syncs.note("synchronize")


class Operations(TorchDispatchMode):
    """Sees each operation, those that make a tensor of nothing among them."""

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        return dispatch(func, args, kwargs or {})


class Calls(TorchFunctionMode):
    """Answers calls that go around the dispatcher; "cuda" is "cuda:0" in their arguments."""

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.device:
            return func(*args, **kwargs)
        if func in _CALLS and isinstance(args[0], torch.Tensor):
            return _CALLS[func](*args)
        args = tuple(map(_in_full, args))
        return func(*args, **{k: _in_full(v) for k, v in kwargs.items()})


def _in_full(x: Any) -> Any:
    if type(x) is str and x == "cuda":
        return CUDA
    return CUDA if type(x) is torch.device and x.type == "cuda" and x.index is None else x


def _tolist(tensor: torch.Tensor) -> Any:
    if here(tensor):
        syncs.note("tolist")
        return tensor.held.tolist()
    return torch._C.TensorBase.tolist(tensor)


def _numpy(tensor: torch.Tensor, *args: Any) -> Any:
    if here(tensor):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
    return torch._C.TensorBase.numpy(tensor, *args)


_CALLS = {
    torch.Tensor.tolist: _tolist,
    torch.Tensor.numpy: _numpy,
    torch.Tensor.is_pinned: lambda x, *_: not here(x) and x in PINNED,
    torch.Tensor.cuda: lambda x, *_: x.to(CUDA),
}


def _cuda() -> dict[str, Any]:
    """Return what stands in for the functions of ``torch.cuda``."""
    state = torch.zeros(16, dtype=torch.uint8)
    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "device": lambda _: nullcontext(),
        "get_device_name": lambda *_: NAME,
        "get_device_capability": lambda *_: (9, 0),
        "is_bf16_supported": lambda *_, **__: True,
        "synchronize": lambda *_: syncs.note("synchronize"),
        "empty_cache": lambda: None,
        "memory_allocated": lambda *_: HELD.now,
        "max_memory_allocated": lambda *_: HELD.peak,
        "reset_peak_memory_stats": HELD.reset_peak,
        "mem_get_info": lambda *_: (TOTAL - HELD.now, TOTAL),
        "get_rng_state": lambda *_: state.clone(),
        "get_rng_state_all": lambda: [state.clone()],
        "set_rng_state": lambda *_: None,
        "set_rng_state_all": lambda _: None,
        "manual_seed": lambda _: None,
        "manual_seed_all": lambda _: None,
        "Stream": Stream,
        "stream": lambda _: nullcontext(),
        "current_stream": lambda *_: Stream(),
        "CUDAGraph": Graph,
        "graph": graph,
        "graph_pool_handle": lambda: (0, 0),
    }


def _always(value: Any) -> Callable[..., Any]:
    """Return what answers ``value``: a mock would keep the tensors that it is called with."""
    return lambda *_: value


@contextmanager
def pretending() -> Iterator[None]:
    """Pretend that this machine has a CUDA device while the block runs."""
    with ExitStack() as stack:
        for name, value in _cuda().items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        amp = torch.cuda.amp.common
        answers = {
            (amp, "amp_definitely_not_available"): False,
            (checkpoint, "_infer_device_type"): "cuda",
        }
        for (module, name), value in answers.items():
            stack.enter_context(mock.patch.object(module, name, _always(value)))
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) is seen as a copy
        stack.callback(torch._C._set_only_lift_cpu_tensors, False)
        stack.enter_context(Operations())
        stack.enter_context(Calls())
        yield
