"""What vLLM's own transfer of weights on CUDA takes and gives, which the stub imitates."""

import ast
import inspect
import json
from importlib import import_module

import pytest
import torch

from alignkit_vllm.options import IPC
from alignkit_vllm.weights import named_weights
from alignkit_vllm.weights.transfer import Source, client_for, init_info

from . import transfer_stub
from .vllm_source import methods, text

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(params=["tied", "untied"])
def policy(request):
    from alignkit_hf import HfPolicy

    return HfPolicy(path=str(request.getfixturevalue(f"{request.param}_folder"))).build()


@pytest.fixture
def server():
    """vLLM's own routes before an engine that notes what it is asked: ``(post, asked)``."""
    from fastapi import FastAPI
    from fastapi.testclient import TestClient
    from vllm.entrypoints.rl.factories import register_rl_api_routers

    asked = []

    class Engine:
        def __getattr__(self, name):
            async def note(*args, **kwargs):
                asked.append((name, args, kwargs))

            return note

    app = FastAPI()
    register_rl_api_routers(app)
    app.state.engine_client = Engine()
    client = TestClient(app)

    def post(path, json=None):
        answer = client.post(f"/{path}", json=json)
        assert answer.status_code == 200, answer.text

    return post, asked


def test_the_server_understands_the_requests_of_an_update(server):
    from vllm.distributed.weight_transfer.base import VLLMWeightSyncClient

    post, asked = server
    client = client_for(post)
    assert isinstance(client, VLLMWeightSyncClient)
    client.shutdown_weight_transfer_engine()
    client.init_weight_transfer_engine({"packed": True})
    client.start_weight_update()
    client.update_weights({"names": ["w"], "dtype_names": ["float32"], "shapes": [[2]]})
    client.finish_weight_update()
    _, (_, (init,), _), _, (_, _, update), _ = asked
    assert [name for name, *_ in asked] == [
        "shutdown_weight_transfer_engine", "init_weight_transfer_engine", "start_weight_update",
        "update_weights", "finish_weight_update",
    ]  # fmt: skip
    assert init.init_info == {"packed": True}
    assert update["request"].update_info["shapes"] == [[2]]


def test_handles_of_memory_arrive_as_they_were_with_the_server_s_leave_alone(server, monkeypatch):
    from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferUpdateInfo

    post, asked = server
    handles = {"GPU-a": (torch.Tensor, (4,), b"\x00\xff", None)}
    sent = {"names": ["w"], "dtype_names": ["uint8"], "shapes": [[4]], "tensor_sizes": [4]}
    client_for(post).update_weights({**sent, "ipc_handles": handles})
    arrived = asked[0][2]["request"].update_info
    json.dumps(arrived)
    with pytest.raises(ValueError, match="VLLM_ALLOW_INSECURE_SERIALIZATION=1"):
        IPCWeightTransferUpdateInfo(**arrived)
    monkeypatch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")  # as the run's own server has
    assert IPCWeightTransferUpdateInfo(**arrived).ipc_handles == handles


@pytest.mark.parametrize("how", ["ipc", "nccl"])
def test_both_ends_are_made_from_what_is_given(how):
    from vllm.distributed.weight_transfer.factory import (
        WeightTransferEngineFactory,
        WeightTransferTrainerFactory,
    )

    info = init_info(how, 123, workers=2, address="10.0.0.7", port=4567)
    assert (info.backend, info.is_sender) == (how, True)
    assert (info.packed, info.packed_buffer_size_bytes) == (True, 123)
    trainer = WeightTransferTrainerFactory._registry[how]()
    worker = WeightTransferEngineFactory._registry[how]()
    assert isinstance(info, trainer.init_info_cls)
    for method in ("trainer_init", "send_weights", "shutdown"):
        assert callable(getattr(trainer, method))
    given = inspect.signature(WeightTransferTrainerFactory.trainer_init)
    given.bind(info, client=None, source=None)
    if how == "nccl":
        assert (info.master_address, info.master_port, info.world_size) == (
            "10.0.0.7", 4567, 3,
        )  # fmt: skip
    else:
        assert worker.init_info_cls(packed=True).packed


def test_weights_pass_the_trainer_s_own_check(policy):
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerWeightTransferEngine

    source = Source(policy, torch.bfloat16)
    check = NCCLTrainerWeightTransferEngine._checked_iter
    sent = dict(check(source, source.metadata()))
    for name, value in named_weights(policy, torch.bfloat16):
        assert torch.equal(sent[name], value)
    wrong = Source(policy, torch.float32)
    with pytest.raises(ValueError, match="disagrees with iteration at index 0"):
        list(check(wrong, source.metadata()))


@pytest.mark.parametrize("module", ["ipc_engine", "nccl_engine"])
def test_the_trainers_ask_a_source_for_nothing_else(module):
    engine = import_module(f"vllm.distributed.weight_transfer.{module}")
    used = {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(engine)))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("source")
    }
    assert used <= {"metadata"}


STUBBED = [
    ("base", "ParamMeta", None),
    ("clients", "HTTPVLLMWeightSyncClient", None),
    ("clients", "HTTPVLLMWeightSyncClient", "_post"),
    ("clients", "HTTPVLLMWeightSyncClient", "init_weight_transfer_engine"),
    ("clients", "HTTPVLLMWeightSyncClient", "shutdown_weight_transfer_engine"),
    ("clients", "HTTPVLLMWeightSyncClient", "start_weight_update"),
    ("clients", "HTTPVLLMWeightSyncClient", "update_weights"),
    ("clients", "HTTPVLLMWeightSyncClient", "finish_weight_update"),
    ("factory", "WeightTransferTrainerFactory", "trainer_init"),
    ("ipc_engine", "IPCTrainerInitInfo", None),
    ("ipc_engine", "IPCTrainerWeightTransferEngine", "trainer_init"),
    ("ipc_engine", "IPCTrainerWeightTransferEngine", "send_weights"),
    ("ipc_engine", "IPCTrainerWeightTransferEngine", "shutdown"),
    ("nccl_engine", "NCCLTrainerInitInfo", None),
    ("nccl_engine", "NCCLTrainerWeightTransferEngine", "trainer_init"),
    ("nccl_engine", "NCCLTrainerWeightTransferEngine", "send_weights"),
    ("nccl_engine", "NCCLTrainerWeightTransferEngine", "shutdown"),
]


@pytest.mark.parametrize(("module", "owner", "method"), STUBBED)
def test_the_stub_of_the_transfer_takes_what_vllm_does(module, owner, method):
    real = getattr(import_module(f"vllm.distributed.weight_transfer.{module}"), owner)
    stub = getattr(transfer_stub, owner)
    if method:
        real, stub = getattr(real, method), getattr(stub, method)
    found, wanted = (inspect.signature(it).parameters for it in (stub, real))
    assert [(p.name, p.kind) for p in found.values()] == [(p.name, p.kind) for p in wanted.values()]
    same = {name for name, p in wanted.items() if p.default is not inspect.Parameter.empty}
    assert {n for n, p in found.items() if p.default is not inspect.Parameter.empty} == same


def test_the_stub_server_has_the_worker_s_methods_of_an_update():
    from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferUpdateInfo
    from vllm.distributed.weight_transfer.nccl_engine import (
        NCCLWeightTransferInitInfo,
        NCCLWeightTransferUpdateInfo,
    )

    found = methods("v1/worker/gpu_worker.py", "Worker")
    for name in ("init_weight_transfer_engine", "start_weight_update", "update_weights",
                 "finish_weight_update", "shutdown_weight_transfer_engine"):  # fmt: skip
        given = set(inspect.signature(getattr(transfer_stub.StubServer, name)).parameters)
        assert {*found[name]} <= given, name
    told = {"master_address", "master_port", "world_size", "packed", "rank_offset"}
    assert told <= set(inspect.signature(NCCLWeightTransferInitInfo).parameters)
    told = {"names", "dtype_names", "shapes"}
    assert told <= set(inspect.signature(NCCLWeightTransferUpdateInfo).parameters)
    told = {"names", "ipc_handles"}
    assert told <= set(inspect.signature(IPCWeightTransferUpdateInfo).parameters)


def test_workers_of_several_servers_have_ranks_from_the_offset_they_are_given():
    source = text("distributed/weight_transfer/nccl_common.py")
    assert "rank = worker_rank + init_info.rank_offset" in source
    trainer = text("distributed/weight_transfer/nccl_engine.py")
    assert "rank_offset=1," in trainer
    assert "engine.client.init_weight_transfer_engine," in trainer


def test_the_ipc_trainer_exchanges_handles_by_methods_that_a_rank_alone_replaces():
    from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerWeightTransferEngine

    trainer = IPCTrainerWeightTransferEngine
    given = inspect.signature(trainer._all_gather_and_merge_handles)
    assert list(given.parameters) == ["self", "handles"]
    assert list(inspect.signature(trainer._post_send_sync).parameters) == []
    source = inspect.getsource(trainer)
    assert "self._all_gather_and_merge_handles([chunk.ipc_handle])[0]" in source
    ends = [line for line in source.splitlines() if "distributed." in line]
    inside = inspect.getsource(trainer._all_gather_and_merge_handles)
    inside += inspect.getsource(trainer._post_send_sync)
    assert all(line in inside for line in ends)


def test_a_failed_update_ends_the_sending():
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerWeightTransferEngine

    source = inspect.getsource(NCCLTrainerWeightTransferEngine.shutdown)
    assert "self.model_update_group.destroy()" in source
    from vllm.distributed.device_communicators.pynccl import PyNcclCommunicator

    assert "ncclCommAbort" in inspect.getsource(PyNcclCommunicator.destroy)
    assert "if self.disabled:" in inspect.getsource(PyNcclCommunicator.broadcast)


def test_a_worker_tells_its_place_from_what_it_has():
    found = methods("v1/worker/gpu_worker.py", "Worker")
    for name in ("init_weight_transfer_engine", "update_weights", "finish_weight_update"):
        assert name in found
    source = text("v1/worker/gpu_worker.py")
    assert source.count("self._weight_update_active = False") == 3  # start, failure, finish
    assert "if not self._weight_update_active:" in source
    assert "self.vllm_config.weight_transfer_config" in source
    assert "self.device = torch.device(" in source
    from vllm.config import ParallelConfig, WeightTransferConfig

    config = ParallelConfig()
    assert config.world_size * config.data_parallel_size == 1
    assert WeightTransferConfig(**IPC).backend == "ipc"
