"""The policy's weights on their way to the engine: straight from memory to memory, no file.

An engine in this process takes the tensors as they are. One in another process opens a
connection back to the trainer and reads each tensor's bytes into memory of its own; that is the
same on CPUs and GPUs, on one machine and on several, and it needs no second set of weights.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from io import BufferedReader
from socket import SocketIO
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alignkit.errors import AlignkitError
from alignkit.protocols import Adapted

if TYPE_CHECKING:
    from alignkit.protocols import Policy

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and activation checkpointing put into parameter names."""


def named_weights(policy: Policy, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yield every weight once, by its checkpoint name, floating-point ones as ``dtype``.

    A tied output head comes only as the embedding (of sharded weights as both, which engines
    take too). Sharded weights are gathered one at a time, so all ranks have to iterate.
    """
    sent: set[tuple[int, torch.Size]] = set()
    merged = policy.weights() if isinstance(policy, Adapted) else None
    for name, value in merged or policy.model.state_dict().items():
        full = value.full_tensor() if hasattr(value, "full_tensor") else value
        place = (full.data_ptr(), full.shape)
        if full is value and full.numel():
            if place in sent:
                continue
            sent.add(place)
        yield clean(name), full.detach().to(dtype) if full.is_floating_point() else full.detach()


def clean(name: str) -> str:
    """Return the name a checkpoint has for the parameter.

    >>> clean("_orig_mod.model.layers.0._checkpoint_wrapped_module.mlp.up_proj.weight")
    'model.layers.0.mlp.up_proj.weight'
    """
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def compute_dtype(policy: Policy, wanted: str) -> torch.dtype:
    """Return the engine's type: the one ``wanted``, or that of the policy's matrix products."""
    if wanted != "auto":
        dtype = getattr(torch, wanted)
        assert isinstance(dtype, torch.dtype)
        return dtype
    parameter = next(policy.model.parameters())
    context: AbstractContextManager[Any] = policy.autocast() or nullcontext()
    with context:
        if torch.is_autocast_enabled(parameter.device.type):
            return torch.get_autocast_dtype(parameter.device.type)
    return parameter.dtype


class Sender:
    """Hands the weights to the workers that connect and show the token."""

    def __init__(self, workers: int, host: str, timeout: float) -> None:
        """Listen on ``host`` for ``workers`` connections, each within ``timeout`` seconds."""
        self.token = secrets.token_hex(16)
        self.workers = workers
        self.timeout = timeout
        self._listener = socket.create_server((host, 0))
        self._listener.settimeout(timeout)
        self.port: int = self._listener.getsockname()[1]

    def send(self, weights: Iterator[tuple[str, Tensor]]) -> int:
        """Send all weights to all workers; return the bytes sent to each."""
        sent = 0
        with self._connected() as streams:
            for name, tensor in weights:
                data = tensor.cpu().contiguous()
                head = {"name": name, "dtype": str(data.dtype)[6:], "shape": list(data.shape)}
                for stream in streams:
                    stream.sendall(json.dumps(head).encode() + b"\n")
                    if data.numel():
                        stream.sendall(_bytes(data))
                sent += data.nbytes
            for stream in streams:
                stream.sendall(b"null\n")
        return sent

    @contextmanager
    def _connected(self) -> Iterator[Sequence[socket.socket]]:
        streams: list[socket.socket] = []
        try:
            while len(streams) < self.workers:
                streams.append(self._accept())
            yield streams
        finally:
            for stream in streams:
                stream.close()

    def _accept(self) -> socket.socket:
        while True:
            stream, _ = self._listener.accept()
            stream.settimeout(self.timeout)
            if secrets.compare_digest(_exactly(stream, len(self.token)), self.token.encode()):
                return stream
            stream.close()

    def close(self) -> None:
        """Stop listening; a wait for workers, in whatever thread, ends in OSError."""
        with suppress(OSError):  # closing alone would leave the waiting thread asleep
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def receive(host: str, port: int, token: str, timeout: float) -> Iterator[tuple[str, Tensor]]:
    """Yield what a :class:`Sender` sends, as CPU tensors of their own."""
    with socket.create_connection((host, port), timeout) as stream:
        stream.sendall(token.encode())
        file = BufferedReader(SocketIO(stream, "r"), 2**20)
        while True:
            head = json.loads(file.readline() or b'"lost"')
            if head is None:
                return
            if head == "lost":
                raise AlignkitError("the trainer closed the connection amid the weights")
            tensor = torch.empty(head["shape"], dtype=getattr(torch, head["dtype"]))
            if tensor.numel() and file.readinto(_bytes(tensor)) != tensor.nbytes:
                raise AlignkitError(f"the trainer closed the connection amid {head['name']}")
            yield head["name"], tensor


def _bytes(tensor: Tensor) -> memoryview:
    """Return a view of a contiguous CPU tensor's memory."""
    array: Any = tensor.view(-1).view(torch.uint8).numpy()
    return memoryview(array)


def _exactly(stream: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count and (more := stream.recv(count - len(found))):
        found += more
    return found
