"""vLLM's own weight transfer, from the trainer's GPU to the GPUs of a server on this machine.

CUDA IPC where the engine is on the trainer's card: its worker reads the trainer's memory. NCCL
where it is on other cards. Both go through one buffer of ``BUFFER`` bytes, so neither side holds a
second set of weights. What neither reaches gets its weights over a socket:

- CPUs: vLLM's transfers have no way between them;
- servers on other machines: NCCL asks nobody for a key, a socket does;
- a model cut over the trainer's card and others: IPC knows one card, NCCL wants one for each rank;
- IPC from a policy cut over several ranks, which would all have to take part.

API: vllm/distributed/weight_transfer/{base,clients,factory,ipc_engine,nccl_engine}.py, vLLM 0.32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from alignkit.errors import AlignkitError
from alignkit_vllm.weights import named_weights, shapes

if TYPE_CHECKING:
    from alignkit.protocols import Policy

BUFFER = 2**28
"""Bytes sent at once, at least; a larger tensor has a buffer of its size."""

Way = Literal["ipc", "nccl", "socket"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker of the engine is, as it reports itself."""

    gpu: str
    """UUID of its GPU, "" on a CPU."""
    transfer: str
    """The vLLM transfer it was started with, "" for none."""
    workers: int
    """Workers of the whole server."""


def way(gpu: str, ranks: int, places: Sequence[Place]) -> Way:
    """Return how weights get from a trainer's ``gpu`` to the workers at ``places``.

    Args:
        gpu: UUID of the policy's GPU, "" on a CPU.
        ranks: Processes that the policy is cut over.
        places: The workers that the server reported.
    """
    theirs = [place.gpu for place in places]
    started_with = {place.transfer for place in places}
    if not gpu or "" in theirs or any(place.workers != len(places) for place in places):
        return "socket"
    if started_with == {"ipc"} and set(theirs) == {gpu} and ranks == 1:
        return "ipc"
    if started_with == {"nccl"} and len({gpu, *theirs}) == 1 + len(theirs):
        return "nccl"
    return "socket"


def gpu_of(policy: Policy) -> str:
    """Return the UUID of the policy's GPU, "" on a CPU."""
    device = next(policy.model.parameters()).device
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""


class Source:
    """A policy's weights as vLLM's trainer engines want them: listed first, then yielded."""

    def __init__(self, policy: Policy, dtype: torch.dtype) -> None:
        self.policy, self.dtype = policy, dtype

    def metadata(self) -> list[Any]:
        """Return vLLM's name, type and shape of each weight, in the order of iteration."""
        meta = _vllm("base").ParamMeta
        return [meta(name, dtype, tuple(shape)) for name, dtype, shape in self._shapes()]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return named_weights(self.policy, self.dtype)

    def buffer(self) -> int:
        """Return the bytes of a buffer that holds any of the weights."""
        return max(BUFFER, *(shape.numel() * dtype.itemsize for _, dtype, shape in self._shapes()))

    def _shapes(self) -> Iterator[tuple[str, torch.dtype, torch.Size]]:
        return shapes(self.policy, self.dtype)


class Transfer:
    """A trainer's end of vLLM's transfer, joined with the workers of one server."""

    def __init__(
        self,
        how: Way,
        source: Source,
        post: Callable[[str, Mapping[str, Any] | None], Any],
        *,
        workers: int,
        port: int,
    ) -> None:
        """Join the workers over ``how``, "nccl" through ``port`` of this machine.

        ``post`` posts JSON to a path of the server. RuntimeError or AlignkitError where the
        workers cannot be joined.
        """
        self.source, self._post = source, post
        self._engine: Any = None
        self._error: AlignkitError | None = None
        info = init_info(how, source.buffer(), workers=workers, port=port)
        with self._device():
            self._engine = _vllm("factory").WeightTransferTrainerFactory.trainer_init(
                info, client=routes(self._ask), source=source
            )

    def send(self) -> None:
        """Send the source's weights, and return when all workers compute with them.

        AlignkitError if the workers did not take them; the transfer can then no longer be used.
        """
        try:
            with torch.no_grad(), self._device():
                self._engine.send_weights()
        except RuntimeError as error:  # what became of NCCL, once the workers had failed
            raise self._error or error from error

    def _ask(self, path: str, json: Mapping[str, Any] | None = None) -> None:
        try:
            self._post(f"/{path}", json)
        except AlignkitError as error:
            self._error = error
            self.close()  # or the sending, in another thread, would wait for the workers for ever
            raise

    def _device(self) -> torch.cuda.device:
        return torch.cuda.device(next(self.source.policy.model.parameters()).device)

    def close(self) -> None:
        """Leave the workers; a transfer in progress, in any thread, ends."""
        if self._engine is not None:
            self._engine.shutdown()


def routes(post: Callable[..., None]) -> Any:
    """Return vLLM's client for the server's requests of a weight update, which sends by ``post``.

    It pickles the handles of CUDA IPC; its own ``_post`` knows no key.
    """
    client = _vllm("clients").HTTPVLLMWeightSyncClient("")
    client._post = post
    return client


def init_info(how: Way, buffer: int, *, workers: int, port: int) -> Any:
    """Return what vLLM's trainer engine of this way is made from."""
    sizes = {"packed": True, "packed_buffer_size_bytes": buffer}
    if how == "ipc":
        return _vllm("ipc_engine").IPCTrainerInitInfo(rank=0, **sizes)
    return _vllm("nccl_engine").NCCLTrainerInitInfo(
        rank=0, master_address="127.0.0.1", master_port=port, world_size=1 + workers, **sizes
    )


def _vllm(module: str) -> Any:
    return import_module(f"vllm.distributed.weight_transfer.{module}")
