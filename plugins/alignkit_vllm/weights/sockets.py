"""Weights over a socket, which works for CPUs and GPUs, on this machine and on others.

The worker connects to the trainer, sends a token, and reads each tensor's bytes into its own
memory. There is no second set of weights, nothing is unpickled, and only workers with the token are
served. vLLM's own transfers do not work between CPUs, and anybody can join them.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BufferedReader
from socket import SocketIO
from typing import Any

import torch
from torch import Tensor

from alignkit.errors import AlignkitError


class Sender:
    """Sends the weights to the workers that connect with the token."""

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
        """Stop listening; a wait for workers, in any thread, raises OSError."""
        with suppress(OSError):  # close() alone would not wake the waiting thread
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def receive(host: str, port: int, token: str, timeout: float) -> Iterator[tuple[str, Tensor]]:
    """Yield the names and weights that a :class:`Sender` sends, as new CPU tensors."""
    with socket.create_connection((host, port), timeout) as stream:
        stream.sendall(token.encode())
        file = BufferedReader(SocketIO(stream, "r"), 2**20)
        while True:
            head = json.loads(file.readline() or b'"lost"')
            if head is None:
                return
            if head == "lost":
                raise AlignkitError("the trainer closed the connection before the last weight")
            tensor = torch.empty(head["shape"], dtype=getattr(torch, head["dtype"]))
            if tensor.numel() and file.readinto(_bytes(tensor)) != tensor.nbytes:
                raise AlignkitError(f"the trainer closed the connection within {head['name']}")
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
