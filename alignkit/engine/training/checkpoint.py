"""A checkpoint's content: values as JSON, tensors as safetensors; nothing is pickled.

``state.json`` holds plain values unchanged and everything else as a tagged object:
``{"map": …}``, ``{"tuple": …}``, ``{"record": …}`` for the records of the engine that a step
works on, and ``{"tensor": …}``, the name of a tensor in ``tensors.safetensors`` or, where there is
more than ``PART`` bytes, in one of ``tensors_1.safetensors``, …. Small tensors, and long lists of
numbers, share one tensor per dtype. Floats come back bit for bit. ``{"part": …}`` names a tensor
that is cut over ranks: see :mod:`alignkit.engine.ranks.parted`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from alignkit.engine.ranks.shards import PARTS, is_cut, own_part, updated_of
from alignkit.engine.sampling.rollouts import Trajectory
from alignkit.engine.sampling.transcript import Exchange
from alignkit.engine.tokens import TrainRow
from alignkit.errors import AlignkitError
from alignkit.protocols import Completion, Example, Policy, Reward

STATE, TENSORS = "state.json", "tensors{}.safetensors"
PART = 2**30
"""Bytes of tensors in one file. A save holds one file's in the host's memory, where the whole state
of a policy on a GPU may not fit."""
SMALL = 2**14
"""Tensors with fewer elements share one tensor."""
LONG = 8
"""Lists of at least this many numbers are kept as a tensor."""
RECORDS: dict[str, type[Any]] = {
    cls.__name__: cls for cls in (Completion, Example, Exchange, Reward, TrainRow, Trajectory)
}
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""safetensors' names, https://github.com/huggingface/safetensors#format."""


class EncodedState:
    """A value split into JSON and tensors."""

    def __init__(self, value: Any) -> None:
        """Split ``value``; TypeError for what cannot be stored."""
        self.tensors: dict[str, Tensor] = {}
        self.parts: dict[str, Any] = {}
        """DTensors, which are not in :meth:`files`."""
        self._shared: dict[torch.dtype, list[Tensor]] = {}
        self._used: dict[torch.dtype, int] = {}
        self.tree = self._encode(value)
        for dtype, parts in self._shared.items():
            self.tensors[f"shared/{DTYPES[dtype]}"] = torch.cat(parts)

    @property
    def size(self) -> int:
        """Size of the tensors in bytes, of all ranks' parts together."""
        tensors = (*self.tensors.values(), *self.parts.values())
        return sum(t.numel() * t.element_size() for t in tensors)

    def files(self) -> dict[str, Callable[[Path], object]]:
        """Return a writer for each file of the checkpoint."""
        text = json.dumps(self.tree).encode()
        writers: dict[str, Callable[[Path], object]] = {STATE: lambda path: path.write_bytes(text)}
        for i, part in enumerate(_parts(self.tensors)):
            writers[TENSORS.format(f"_{i}" if i else "")] = partial(_write, part)
        return writers

    def _encode(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value.item() if isinstance(value, np.generic) else value
        if isinstance(value, Tensor):
            return self._part(value) if is_cut(value) else {"tensor": self._tensor(value.detach())}
        if isinstance(value, np.ndarray):
            return {"array": self._array(value), "dtype": value.dtype.str, "shape": value.shape}
        if isinstance(value, list | tuple):
            encoded = self._sequence(value)
            return encoded if type(value) is list else {"tuple": encoded}
        if isinstance(value, Mapping):
            return {"map": [[self._encode(k), self._encode(v)] for k, v in value.items()]}
        if is_dataclass(value) and type(value).__name__ in RECORDS:
            return {"record": type(value).__name__, "fields": self._record(value)}
        raise TypeError(
            f"a {type(value).__qualname__} cannot be kept in a checkpoint; numbers, texts, lists, "
            f"tuples, dicts, tensors and {', '.join(RECORDS)} can"
        )

    def _record(self, value: Any) -> dict[str, Any]:
        given = {f.name: getattr(value, f.name) for f in fields(value)}
        if isinstance(value, Example):
            given["extra"] = {k: v for k, v in value.extra.items() if _plain(v)}
        return {name: self._encode(item) for name, item in given.items()}

    def _sequence(self, values: Sequence[Any]) -> Any:
        kinds = {type(v) for v in values} if len(values) >= LONG else set()
        if kinds == {int} and all(-(2**63) <= v < 2**63 for v in values):
            return {"numbers": self._tensor(torch.tensor(values, dtype=torch.int64))}
        if kinds == {float}:
            return {"numbers": self._tensor(torch.tensor(values, dtype=torch.float64))}
        return [self._encode(v) for v in values]

    def _array(self, array: np.ndarray[Any, Any]) -> dict[str, Any]:
        if array.dtype.hasobject:
            raise TypeError("an array of objects cannot be kept in a checkpoint")
        return self._tensor(torch.frombuffer(bytearray(array.tobytes()), dtype=torch.uint8))

    def _part(self, tensor: Tensor) -> dict[str, Any]:
        name = f"part/{len(self.parts)}"
        self.parts[name] = tensor
        return {"part": name, "shape": list(tensor.shape), "dtype": DTYPES[tensor.dtype]}

    def _tensor(self, tensor: Tensor) -> dict[str, Any]:
        if tensor.dtype not in DTYPES:
            raise TypeError(f"a tensor of {tensor.dtype} cannot be kept in a checkpoint")
        place: dict[str, Any] = {"shape": list(tensor.shape)}
        if tensor.numel() >= SMALL:
            name = f"tensor/{len(self.tensors)}"
            self.tensors[name] = tensor
            return {**place, "name": name}
        start = self._used.get(tensor.dtype, 0)
        self._shared.setdefault(tensor.dtype, []).append(tensor.reshape(-1).cpu())
        self._used[tensor.dtype] = start + tensor.numel()
        return {**place, "name": f"shared/{DTYPES[tensor.dtype]}", "start": start}


class StoredState:
    """A checkpoint being read."""

    def __init__(self, folder: Path, blank: Callable[..., Tensor] = torch.empty) -> None:
        """``blank(shape, dtype=…)`` returns the memory for a tensor that was cut over ranks."""
        self._tree = json.loads((folder / STATE).read_bytes())
        files: list[Any] = [
            safe_open(p, framework="pt") for p in sorted(folder.glob(TENSORS.format("*")))
        ]
        self._files: dict[str, Any] = {name: file for file in files for name in file.keys()}  # noqa: SIM118
        self._shared: dict[str, Tensor] = {}
        self._folder, self._blank, self._parts = folder, blank, dict[str, Tensor]()

    def value(self) -> Any:
        """Reassemble the value, with tensors on the CPU."""
        found = self._decode(self._tree)
        if self._parts:
            from alignkit.engine.ranks.parted import load

            load(self._folder / PARTS, self._parts)
        return found

    def _decode(self, tree: Any) -> Any:
        if isinstance(tree, list):
            return [self._decode(item) for item in tree]
        if not isinstance(tree, dict):
            return tree
        kind, inner = next(iter(tree.items()))
        makers: dict[str, Callable[[], Any]] = {
            "tensor": lambda: self._tensor(inner),
            "part": lambda: self._part(inner, tree),
            "array": lambda: self._array(tree),
            "numbers": lambda: self._tensor(inner).tolist(),
            "tuple": lambda: tuple(self._decode(inner)),
            "map": lambda: {self._decode(k): self._decode(v) for k, v in inner},
            "record": lambda: self._record(inner, tree["fields"]),
        }
        return makers[kind]()

    def _part(self, name: str, tree: Mapping[str, Any]) -> Tensor:
        dtype = next(t for t, known in DTYPES.items() if known == tree["dtype"])
        self._parts[name] = self._blank(tree["shape"], dtype=dtype)
        return self._parts[name]

    def _array(self, tree: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        data: np.ndarray[Any, Any] = self._tensor(tree["array"]).numpy().view(tree["dtype"])
        return data.reshape(tree["shape"])

    def _record(self, name: str, given: Mapping[str, Any]) -> Any:
        return RECORDS[name](**{field: self._decode(item) for field, item in given.items()})

    def _tensor(self, place: Mapping[str, Any]) -> Tensor:
        name, shape = place["name"], place["shape"]
        if "start" not in place:
            return self._get(name)
        if name not in self._shared:
            self._shared[name] = self._get(name)
        size = int(np.prod(shape, dtype=np.int64))
        return self._shared[name][place["start"] : place["start"] + size].reshape(shape).clone()

    def _get(self, name: str) -> Tensor:
        found: Tensor = self._files[name].get_tensor(name)
        return found


def _parts(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield the tensors in groups of ``PART`` bytes at most, or of one; at least one group."""
    part: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if part and size + tensor.nbytes > PART:
            yield part
            part, size = {}, 0
        part[name] = tensor
        size += tensor.nbytes
    yield part


def _write(part: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file; tensors that share memory are copied, as the library requires."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in part.items():
        value = tensor.detach().cpu().contiguous()
        places = {t.untyped_storage().data_ptr() for t in tensors.values()}
        shared = value.untyped_storage().data_ptr() in places
        tensors[name] = value.clone() if shared else value
    with os_errors():
        save_file(tensors, path)


@contextmanager
def os_errors() -> Iterator[None]:
    """Raise safetensors' own error about a file as the OSError that caused it."""
    try:
        yield
    except SafetensorError as error:
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise


def weights(policy: Policy) -> dict[str, Tensor]:
    """Return what training changes in a policy: trainable parameters, and saved buffers.

    Of a model that is cut over ranks the parameters are DTensors.
    """
    shards, held = updated_of(policy.model), _held(policy)
    return held | (shards.weights() if shards else {})


def _held(policy: Policy) -> dict[str, Tensor]:
    """Return the tensors that this rank holds, which may be parts."""
    trained = {n: p.detach() for n, p in policy.model.named_parameters() if p.requires_grad}
    kept = policy.model.state_dict().keys()
    return trained | {n: b for n, b in policy.model.named_buffers() if n in kept}


@torch.no_grad()
def load_weights(policy: Policy, saved: Mapping[str, Tensor]) -> None:
    """Load saved weights into the policy, in place; AlignkitError if they do not fit it."""
    shards, own = updated_of(policy.model), _held(policy)
    for name, tensor in own.items():
        if name not in saved or saved[name].shape != tensor.shape:
            raise AlignkitError(f"the checkpoint does not hold the weights {name} of the policy")
        if saved[name].is_floating_point() and not own_part(saved[name]).isfinite().all():
            raise AlignkitError(f"the checkpoint's weights {name} hold numbers that are not finite")
        if shards is None or not shards.load(name, saved[name]):
            tensor.copy_(saved[name])
    if extra := saved.keys() - own.keys():
        raise AlignkitError(f"the checkpoint holds weights the policy lacks, as {min(extra)}")


def _plain(value: Any) -> bool:
    """Whether JSON can hold a column of the data."""
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _plain(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    return value is None or isinstance(value, (str, int, float))
