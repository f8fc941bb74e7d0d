"""Values as bytes, for other ranks of the same run; nothing is unpickled.

Plain values, lists, tuples, mappings, tensors, completions and rewards: JSON, behind it the bytes
of the tensors. Floats and tensors come back bit for bit, on the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from alignkit.protocols import Completion, Reward

RECORDS: dict[str, type[Any]] = {cls.__name__: cls for cls in (Completion, Reward)}
DTYPES = {
    str(t): t
    for t in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
        torch.uint8, torch.bool,
    )
}  # fmt: skip


def packed(value: Any) -> bytes:
    """Return ``value`` as bytes; TypeError for what cannot be sent."""
    tensors = bytearray()
    text = json.dumps(_plain(value, tensors)).encode()
    return b"".join([len(text).to_bytes(8, "big"), text, tensors])


def unpacked(data: bytes) -> Any:
    """Return the value that :func:`packed` made bytes of."""
    start = 8 + int.from_bytes(data[:8], "big")
    return _value(json.loads(data[8:start]), memoryview(data)[start:])


def _plain(value: Any, tensors: bytearray) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return _tensor(value, tensors)
    if isinstance(value, list | tuple):
        inner = [_plain(item, tensors) for item in value]
        return inner if isinstance(value, list) else {"tuple": inner}
    if isinstance(value, Mapping):
        pairs = [[_plain(k, tensors), _plain(v, tensors)] for k, v in value.items()]
        return {"map": pairs}
    name = type(value).__name__
    if RECORDS.get(name) is type(value):
        inner = [_plain(getattr(value, f.name), tensors) for f in fields(RECORDS[name])]
        return {"record": name, "fields": inner}
    if hasattr(value, "item"):  # a number of NumPy's
        return _plain(value.item(), tensors)
    raise TypeError(f"a {type(value).__qualname__} cannot be sent to other ranks")


def _tensor(value: Tensor, tensors: bytearray) -> dict[str, Any]:
    flat = value.detach().cpu().contiguous().reshape(-1)
    data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    start = len(tensors)
    tensors += data
    shape = list(value.shape)
    return {"tensor": str(value.dtype), "shape": shape, "start": start, "bytes": len(data)}


def _value(tree: Any, data: memoryview) -> Any:
    if isinstance(tree, list):
        return [_value(item, data) for item in tree]
    if not isinstance(tree, dict):
        return tree
    kind, inner = next(iter(tree.items()))
    makers: dict[str, Callable[[], Any]] = {
        "tuple": lambda: tuple(_value(inner, data)),
        "map": lambda: {_value(k, data): _value(v, data) for k, v in inner},
        "record": lambda: RECORDS[inner](*_value(tree["fields"], data)),
        "tensor": lambda: _read(tree, data),
    }
    return makers[kind]()


def _read(tree: Mapping[str, Any], data: memoryview) -> Tensor:
    dtype = DTYPES[tree["tensor"]]
    if not tree["bytes"]:
        return torch.empty(tree["shape"], dtype=dtype)
    part = bytearray(data[tree["start"] : tree["start"] + tree["bytes"]])
    return torch.frombuffer(part, dtype=dtype).reshape(tree["shape"])
