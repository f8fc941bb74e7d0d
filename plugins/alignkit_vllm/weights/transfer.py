"""vLLM's own weight transfer, from the trainer's GPU to the GPUs of servers; see ``routes``.

CUDA IPC is used if the engine is on the trainer's card: its worker reads the trainer's memory. NCCL
is used if engines are on other cards: one broadcast reaches the workers of all of them. Both use
one buffer of ``BUFFER`` bytes, so neither side holds a second set of weights.

API: vllm/distributed/weight_transfer/{base,clients,factory,ipc_engine,nccl_engine}.py, vLLM 0.32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from importlib import import_module
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from alignkit.errors import AlignkitError
from alignkit_vllm.routes import WORDS, Way
from alignkit_vllm.weights import named_weights, shapes
from alignkit_vllm.weights.peers import Peers

if TYPE_CHECKING:
    from alignkit.protocols import Policy

T = TypeVar("T")

BUFFER = 2**28
"""Bytes of the buffer; it is as large as the largest tensor, if that is larger."""
PATIENCE = 10.0
"""Seconds to wait for the end of a broadcast that was given up."""


def device_of(policy: Policy) -> torch.device:
    """Return the device of the policy's weights."""
    found: torch.device = next(policy.model.parameters()).device
    return found


def gpu_of(policy: Policy) -> str:
    """Return the UUID of the policy's GPU, "" on a CPU."""
    device = device_of(policy)
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""


class Source:
    """A policy's weights as vLLM's trainer engines read them: listed first, then yielded."""

    def __init__(self, policy: Policy, dtype: torch.dtype) -> None:
        self.policy, self.dtype = policy, dtype
        self._listed = list(shapes(policy, dtype))

    def metadata(self) -> list[Any]:
        """Return vLLM's name, type and shape of each weight, in the order of iteration."""
        meta = _vllm("base").ParamMeta
        return [meta(name, dtype, tuple(shape)) for name, dtype, shape in self._listed]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Yield names and tensors; vLLM reads them on its own streams, which wait for no other."""
        device = device_of(self.policy)
        for number, pair in enumerate(named_weights(self.policy, self.dtype)):
            if number == 0 and device.type == "cuda":  # wait for the update and adapter merging
                torch.cuda.synchronize(device)
            yield pair

    def buffer(self) -> int:
        """Return the bytes of a buffer that holds any of the weights."""
        return max(BUFFER, *(shape.numel() * dtype.itemsize for _, dtype, shape in self._listed))


class Transfer:
    """The trainer's end of vLLM's transfer, connected with the workers of its servers."""

    def __init__(self, how: Way, source: Source, peers: Peers, *, address: str, port: int) -> None:
        """Connect with the workers; for "nccl" at ``port`` of this machine's ``address``.

        Raises AlignkitError if they cannot be connected.
        """
        self.how, self.source, self.peers = how, source, peers
        self._engine: Any = None
        self._ended: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        workers = sum(peers.workers)
        info = init_info(how, source.buffer(), workers=workers, address=address, port=port)
        self._engine = self._beside(lambda: self._join(info), "set up")

    def _join(self, info: Any) -> Any:
        client = client_for(self._ask)
        client.shutdown_weight_transfer_engine()  # left by an earlier trainer
        factory = _vllm("factory").WeightTransferTrainerFactory
        engine = factory.trainer_init(info, client=client, source=self.source)
        return _for_one_rank(engine) if self.how == "ipc" else engine

    def send(self) -> None:
        """Send the source's weights, and return when all workers use them.

        Raises AlignkitError if they could not be sent, LostError if a server is lost; the transfer
        can then no longer be used.
        """
        self._beside(self._engine.send_weights, "carried out")

    def close(self) -> None:
        """Disconnect; a transfer in progress, in any thread, raises AlignkitError."""
        self._give_up(AlignkitError("the transfer of weights was given up"))

    def _give_up(self, why: BaseException) -> None:
        self.peers.give_up(why)
        self._ended.put((None, why))
        if self._engine is not None:
            self._engine.shutdown()

    def _beside(self, work: Callable[[], T], what: str) -> T:
        """Return ``work()``, or raise as soon as it or a request to the servers fails.

        It runs in a thread: if a worker has failed, vLLM waits for it in C code for ever, where no
        signal interrupts it.
        """
        self._ended = ended = SimpleQueue[tuple[Any, BaseException | None]]()

        def run() -> None:
            try:
                with torch.no_grad(), self._device():
                    ended.put((work(), None))
            except BaseException as error:  # noqa: BLE001 # the waiting thread raises it
                ended.put((None, error))

        thread = Thread(target=run, name=f"alignkit sends weights by {self.how}", daemon=True)
        thread.start()
        try:
            found, error = _first(ended)
            if error is not None:
                raise self._cause(error, what) from error
        except BaseException as error:
            self._give_up(error)
            thread.join(PATIENCE)
            raise
        result: T = found
        return result

    def _cause(self, error: BaseException, what: str) -> AlignkitError:
        """Return a server's error, if any: it explains more than the error of the sending."""
        first = self.peers.error or error
        if isinstance(first, AlignkitError):
            return first
        return AlignkitError(
            f"vLLM's transfer of weights by {WORDS[self.how]} could not be {what}: {first!r}; "
            'set weights = "socket" in [rollout] to do without it'
        )

    def _ask(self, path: str, json: dict[str, Any] | None = None) -> None:
        try:
            self.peers.ask(path, json)
        except BaseException as error:
            self._ended.put((None, error))
            raise

    def _device(self) -> AbstractContextManager[Any]:
        return torch.cuda.device(device_of(self.source.policy))


def _first(items: SimpleQueue[T]) -> T:
    """Wait for the first item and return it; wakes every second, so that signals are handled."""
    while True:
        with suppress(Empty):
            return items.get(timeout=1.0)


def _for_one_rank(engine: Any) -> Any:
    """Make vLLM's IPC trainer serve only this process's engine, even if there are several ranks.

    Otherwise it exchanges memory handles with all ranks for each buffer, for an engine that spans
    their cards. A rank that restarts its engine would then wait for the others for ever.
    """
    engine._all_gather_and_merge_handles = lambda handles: handles
    engine._post_send_sync = torch.cuda.ipc_collect
    return engine


def client_for(post: Callable[..., None]) -> Any:
    """Return vLLM's client for the requests of a weight update, which sends them by ``post``.

    It pickles the handles of CUDA IPC. Its own ``_post`` would send no key.
    """
    client = _vllm("clients").HTTPVLLMWeightSyncClient("")
    client._post = post
    return client


def init_info(how: Way, buffer: int, *, workers: int, address: str, port: int) -> Any:
    """Return the settings of vLLM's trainer engine for ``how``; ``buffer`` is in bytes."""
    sizes = {"packed": True, "packed_buffer_size_bytes": buffer}
    if how == "ipc":
        return _vllm("ipc_engine").IPCTrainerInitInfo(rank=0, **sizes)
    return _vllm("nccl_engine").NCCLTrainerInitInfo(
        rank=0, master_address=address, master_port=port, world_size=1 + workers, **sizes
    )


def _vllm(module: str) -> Any:
    return import_module(f"vllm.distributed.weight_transfer.{module}")
