"""Stands in for ``vllm.distributed.weight_transfer``, and for servers whose workers receive by it.

Names, arguments and the order of calls are vLLM's; ``test_vllm_interface.py`` holds them against
the installed one. NCCL and CUDA IPC are queues and dictionaries that both ends see, with what
matters of them: a broadcast waits for every worker, without end, unless the trainer has left.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Empty, Full, Queue
from typing import ClassVar

import torch

from alignkit_vllm.engines.client import UnreachableError
from alignkit_vllm.weights import named_weights

GROUPS = {}
"""By port: the NCCL group that a trainer has opened there."""


class Group:
    """Rank 0 is the trainer; each other rank has a queue that holds one tensor."""

    def __init__(self, world_size):
        self.queues = {rank: Queue(1) for rank in range(1, world_size)}
        self.joined = threading.Semaphore(0)
        self.left = threading.Event()

    def broadcast(self, item):
        for queue in self.queues.values():
            while not self.left.is_set():
                try:
                    queue.put(item, timeout=0.01)
                    break
                except Full:
                    continue


# ---------------------------------------------------------------- as in base.py and clients.py


@dataclass(frozen=True)
class ParamMeta:
    name: str
    dtype: torch.dtype
    shape: tuple


class HTTPVLLMWeightSyncClient:
    def __init__(self, base_url, timeout=300):
        self.base_url = base_url

    def _post(self, path, json=None):
        raise AssertionError("vLLM's own request has no key")

    def init_weight_transfer_engine(self, init_info):
        self._post("init_weight_transfer_engine", {"init_info": init_info})

    def shutdown_weight_transfer_engine(self):
        self._post("shutdown_weight_transfer_engine")

    def start_weight_update(self):
        self._post("start_weight_update")

    def update_weights(self, update_info):
        self._post("update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version=None):
        json = {"weight_version": weight_version} if weight_version is not None else None
        self._post("finish_weight_update", json)


# ---------------------------------------------------------------- the trainers' ends


@dataclass
class IPCTrainerInitInfo:
    backend: ClassVar = "ipc"
    packed: bool = False
    packed_buffer_size_bytes: int = 2**30
    rank: int = field(kw_only=True)


@dataclass
class NCCLTrainerInitInfo:
    backend: ClassVar = "nccl"
    master_address: str
    master_port: int
    world_size: int
    packed: bool = True
    packed_buffer_size_bytes: int = 2**30
    packed_num_buffers: int = 2
    rank: int = field(kw_only=True)


class IPCTrainerWeightTransferEngine:
    @classmethod
    def trainer_init(cls, init_info, *, client, source=None):
        self = cls()
        self.client, self.source, self.size = client, source, init_info.packed_buffer_size_bytes
        client.init_weight_transfer_engine({"packed": init_info.packed})
        return self

    def send_weights(self):
        self.client.start_weight_update()
        for name, tensor in self.source:
            assert tensor.nbytes <= self.size
            sent = {"names": [name], "ipc_handles": {"GPU-a": tensor}}
            self.client.update_weights(sent)
        self.client.finish_weight_update()

    def shutdown(self):
        """Hold nothing."""


class NCCLTrainerWeightTransferEngine:
    group = None

    @classmethod
    def trainer_init(cls, init_info, *, client, source=None):
        self = cls()
        self.client, self.source = client, source
        keys = ("master_address", "master_port", "world_size", "packed")
        told = {key: getattr(init_info, key) for key in keys} | {"rank_offset": 1}
        with ThreadPoolExecutor(max_workers=1) as pool:
            joining = pool.submit(client.init_weight_transfer_engine, told)
            self.group = GROUPS[init_info.master_port] = Group(init_info.world_size)
            for _ in range(init_info.world_size - 1):  # as the rendezvous, which looks at no error
                self.group.joined.acquire()
            joining.result()
        return self

    def send_weights(self):
        listed = self.source.metadata()
        told = {"names": [meta.name for meta in listed]}
        told["dtype_names"] = [str(meta.dtype).split(".")[-1] for meta in listed]
        told["shapes"] = [list(meta.shape) for meta in listed]
        self.client.start_weight_update()
        pool = ThreadPoolExecutor(max_workers=1)
        try:
            receiving = pool.submit(self.client.update_weights, told)
            for meta, (name, tensor) in zip(listed, self.source, strict=True):
                assert (meta.name, meta.dtype, meta.shape) == (name, tensor.dtype, tensor.shape)
                self.group.broadcast((name, tensor))
            receiving.result()
        finally:
            pool.shutdown(wait=False)
        self.client.finish_weight_update()

    def shutdown(self):
        if self.group is not None:
            self.group.left.set()


class WeightTransferTrainerFactory:
    @classmethod
    def trainer_init(cls, init_info, *, client, source=None):
        engines = {"ipc": IPCTrainerWeightTransferEngine, "nccl": NCCLTrainerWeightTransferEngine}
        return engines[init_info.backend].trainer_init(init_info, client=client, source=source)


# ---------------------------------------------------------------- a server


@dataclass
class StubServer:
    """A server as a delivery's client sees it, each of whose workers has all the weights."""

    transfer: str = "nccl"
    gpus: tuple = ("GPU-b",)
    here: bool = True
    calls: list = field(default_factory=list)
    fails: dict = field(default_factory=dict)
    """By path or method: the error it answers with."""
    hangs: str = ""
    """A path that it never answers."""
    lose_after: int = -1
    """Tensors after which it goes away amid an update."""
    url: str = "http://stub"

    def __post_init__(self):
        self.weights = [{} for _ in self.gpus]
        self.offset, self.port, self.active, self.held = 0, 0, False, ""
        self.over_socket = 0

    def is_here(self):
        return self.here

    def local_address(self):
        return "127.0.0.2"

    def call_workers(self, method, args, timeout):
        self.calls.append((method, *args))
        if method in self.fails:
            raise self.fails[method]
        if method == "alignkit_place":
            same = {"transfer": self.transfer, "workers": len(self.gpus)}
            return [{"gpu": gpu, **same} for gpu in self.gpus]
        if method == "alignkit_hold":
            (self.held,) = args
        return [self.held] * len(self.gpus)

    async def ask_workers(self, method, args, timeout):
        from alignkit_vllm.weights.sockets import receive

        host, port, token, limit, version = args
        self.calls.append((method, version))
        self.weights[0] = dict(receive(host, int(port), token, float(limit)))
        self.held = version
        self.over_socket += 1
        return [None]

    def post(self, path, body, timeout):
        self.calls.append(path[1:])
        if path[1:] in self.fails:
            raise self.fails[path[1:]]
        if path[1:] == self.hangs:
            threading.Event().wait()
        getattr(self, path[1:])(**(body or {}))

    def shutdown_weight_transfer_engine(self):
        self.port = 0

    def init_weight_transfer_engine(self, init_info):
        if self.transfer == "nccl":
            self.port, self.offset = init_info["master_port"], init_info["rank_offset"]
            self.address, self.world = init_info["master_address"], init_info["world_size"]
            while self.port not in GROUPS:  # the trainer opens it meanwhile
                threading.Event().wait(0.001)
            for _ in self.gpus:
                GROUPS[self.port].joined.release()

    def start_weight_update(self):
        if self.active:
            raise UnreachableError("500 a weight update is already active")
        self.active = True

    def update_weights(self, update_info):
        if self.transfer == "ipc":
            (name,) = update_info["names"]
            self.weights[0][name] = update_info["ipc_handles"]["GPU-a"]
            return
        self._wait = threading.Semaphore(0)
        for worker in range(len(self.gpus)):
            threading.Thread(target=self._receive, args=(worker, update_info), daemon=True).start()
        for _ in self.gpus:
            self._wait.acquire()
        if self.lose_after >= 0:
            self.active = False
            raise UnreachableError("500 shapes differ")

    def _receive(self, worker, update_info):
        group = GROUPS[self.port]
        queue = group.queues[self.offset + worker]
        for number, name in enumerate(update_info["names"]):
            if number == self.lose_after:
                break
            while True:
                try:
                    told, tensor = queue.get(timeout=0.5)
                    break
                except Empty:  # a worker waits for ever, also once the trainer has left
                    continue
            assert told == name
            self.weights[worker][name] = tensor.clone()
        self._wait.release()

    def finish_weight_update(self, weight_version=None):
        assert self.active
        self.active = False


def assert_holds(found, policy, dtype):
    """The weights that a server found are the policy's, in this type."""
    want = dict(named_weights(policy, dtype))
    assert list(found) == list(want)
    for name, value in want.items():
        assert found[name].dtype == dtype
        assert torch.equal(found[name], value), name
