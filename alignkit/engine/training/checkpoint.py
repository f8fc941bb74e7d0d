"""A checkpoint's content: values as JSON, tensors as safetensors; nothing is pickled.

``state.json`` holds plain values as they are and everything else as a tagged object:
``{"map": …}``, ``{"tuple": …}``, ``{"record": …}`` for the records of the engine that a step
works on, and ``{"tensor": …}``, a place in ``tensors.safetensors``. Small tensors, and long lists
of numbers, share one tensor per dtype there. Floats come back bit for bit.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from alignkit.engine.sampling.rollouts import Trajectory
from alignkit.engine.tokens import TrainRow
from alignkit.errors import AlignkitError
from alignkit.protocols import Completion, Example, Policy, Reward

STATE, TENSORS = "state.json", "tensors.safetensors"
SMALL = 2**14
"""Tensors of fewer elements share one."""
LONG = 8
"""Lists of so many numbers are kept as a tensor."""
RECORDS: dict[str, type[Any]] = {
    cls.__name__: cls for cls in (Completion, Example, Reward, TrainRow, Trajectory)
}
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""safetensors' names, https://github.com/huggingface/safetensors#format."""


class Packed:
    """A value taken apart into JSON and tensors."""

    def __init__(self, value: Any) -> None:
        """Take ``value`` apart; TypeError for what cannot be kept."""
        self.tensors: dict[str, Tensor] = {}
        self._shared: dict[torch.dtype, list[Tensor]] = {}
        self._used: dict[torch.dtype, int] = {}
        self.tree = self._pack(value)
        for dtype, parts in self._shared.items():
            self.tensors[f"shared/{DTYPES[dtype]}"] = torch.cat(parts)

    @property
    def size(self) -> int:
        """Bytes of the tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values())

    def files(self) -> dict[str, Callable[[BinaryIO], None]]:
        """Return what writes each file of the checkpoint."""
        text = json.dumps(self.tree).encode()
        return {
            STATE: lambda file: void(file.write(text)),
            TENSORS: lambda file: write_tensors(file, self.tensors),
        }

    def _pack(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value.item() if isinstance(value, np.generic) else value
        if isinstance(value, Tensor):
            return {"tensor": self._tensor(value.detach())}
        if isinstance(value, np.ndarray):
            return {"array": self._array(value), "dtype": value.dtype.str, "shape": value.shape}
        if isinstance(value, list | tuple):
            packed = self._sequence(value)
            return packed if type(value) is list else {"tuple": packed}
        if isinstance(value, Mapping):
            return {"map": [[self._pack(k), self._pack(v)] for k, v in value.items()]}
        if is_dataclass(value) and type(value).__name__ in RECORDS:
            return {"record": type(value).__name__, "fields": self._record(value)}
        raise TypeError(
            f"a {type(value).__qualname__} cannot be kept in a checkpoint; numbers, texts, lists, "
            f"tuples, dicts, tensors and {', '.join(RECORDS)} can"
        )

    def _record(self, value: Any) -> dict[str, Any]:
        given = {f.name: getattr(value, f.name) for f in fields(value)}
        if isinstance(value, Example):
            given["extra"] = {}  # for the reward, which has judged
        return {name: self._pack(item) for name, item in given.items()}

    def _sequence(self, values: Sequence[Any]) -> Any:
        kinds = {type(v) for v in values} if len(values) >= LONG else set()
        if kinds == {int} and all(-(2**63) <= v < 2**63 for v in values):
            return {"numbers": self._tensor(torch.tensor(values, dtype=torch.int64))}
        if kinds == {float}:
            return {"numbers": self._tensor(torch.tensor(values, dtype=torch.float64))}
        return [self._pack(v) for v in values]

    def _array(self, array: np.ndarray[Any, Any]) -> dict[str, Any]:
        if array.dtype.hasobject:
            raise TypeError("an array of objects cannot be kept in a checkpoint")
        return self._tensor(torch.frombuffer(bytearray(array.tobytes()), dtype=torch.uint8))

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


class Unpacked:
    """A checkpoint being read."""

    def __init__(self, folder: Path) -> None:
        self._tree = json.loads((folder / STATE).read_bytes())
        self._file = safe_open(folder / TENSORS, framework="pt")
        self._shared: dict[str, Tensor] = {}

    def value(self) -> Any:
        """Put the value together again, tensors on the CPU."""
        return self._unpack(self._tree)

    def _unpack(self, tree: Any) -> Any:
        if isinstance(tree, list):
            return [self._unpack(item) for item in tree]
        if not isinstance(tree, dict):
            return tree
        kind, inner = next(iter(tree.items()))
        makers: dict[str, Callable[[], Any]] = {
            "tensor": lambda: self._tensor(inner),
            "array": lambda: self._array(tree),
            "numbers": lambda: self._tensor(inner).tolist(),
            "tuple": lambda: tuple(self._unpack(inner)),
            "map": lambda: {self._unpack(k): self._unpack(v) for k, v in inner},
            "record": lambda: self._record(inner, tree["fields"]),
        }
        return makers[kind]()

    def _array(self, tree: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        data: np.ndarray[Any, Any] = self._tensor(tree["array"]).numpy().view(tree["dtype"])
        return data.reshape(tree["shape"])

    def _record(self, name: str, given: Mapping[str, Any]) -> Any:
        return RECORDS[name](**{field: self._unpack(item) for field, item in given.items()})

    def _tensor(self, place: Mapping[str, Any]) -> Tensor:
        name, shape = place["name"], place["shape"]
        if "start" not in place:
            return self._get(name)
        if name not in self._shared:
            self._shared[name] = self._get(name)
        size = int(np.prod(shape, dtype=np.int64))
        return self._shared[name][place["start"] : place["start"] + size].reshape(shape).clone()

    def _get(self, name: str) -> Tensor:
        found: Tensor = self._file.get_tensor(name)  # type: ignore[no-untyped-call]
        return found


def write_tensors(file: BinaryIO, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, one tensor in memory at a time."""
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        shape = list(tensor.shape)
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for tensor in tensors.values():
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        file.write(flat.view(torch.uint8).numpy().data)


def weights(policy: Policy) -> dict[str, Tensor]:
    """Return what training changes in a policy: trainable parameters, and saved buffers."""
    trained = {n: p.detach() for n, p in policy.model.named_parameters() if p.requires_grad}
    kept = policy.model.state_dict().keys()
    return trained | {n: b for n, b in policy.model.named_buffers() if n in kept}


@torch.no_grad()
def load_weights(policy: Policy, saved: Mapping[str, Tensor]) -> None:
    """Put saved weights into the policy, in place; AlignkitError if they are not its own."""
    own = weights(policy)
    for name, tensor in own.items():
        if name not in saved or saved[name].shape != tensor.shape:
            raise AlignkitError(f"the checkpoint does not hold the weights {name} of the policy")
        tensor.copy_(saved[name])
    if extra := saved.keys() - own.keys():
        raise AlignkitError(f"the checkpoint holds weights the policy lacks, as {min(extra)}")


def void(_: object) -> None:
    """Return None: for callables that must."""
