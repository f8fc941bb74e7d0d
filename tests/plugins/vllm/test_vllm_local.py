"""An engine in the trainer's process leaves that as it was, and is not shut down asleep."""

import os
import sys
from types import SimpleNamespace

import pytest
import torch

from alignkit_hf import HfPolicy
from alignkit_vllm.engines.local import ENVIRONMENT, LocalEngine
from alignkit_vllm.worker import Extension


@pytest.fixture
def policy(tiny_folder):
    return HfPolicy(path=str(tiny_folder)).build()


class Llm:
    """What vLLM's engine does to the process it runs in, and when it may be shut down."""

    def __init__(self, **options):
        self.options, self.calls = options, []
        self.llm_engine = SimpleNamespace(engine_core=self)
        torch.set_float32_matmul_precision("medium")
        torch.set_num_threads(1)
        torch.set_num_threads = lambda n: None

    def sleep(self, level):
        self.calls.append("sleep")

    def wake_up(self, tags=("weights", "kv_cache")):
        self.calls.append("wake_up")

    def shutdown(self):
        self.calls.append("shutdown")


@pytest.fixture
def started(policy, tmp_path, monkeypatch):
    """``started(dtype)``: an engine beside the policy, and its :class:`Llm`."""
    state = SimpleNamespace(cleanup_dist_env_and_memory=lambda: None)
    for name, module in {
        "vllm": SimpleNamespace(LLM=Llm),
        "vllm.distributed.parallel_state": state,
        "vllm.distributed": SimpleNamespace(parallel_state=state),
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in (*ENVIRONMENT, "TRITON_F32_DEFAULT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def start(dtype="float32"):
        engine = LocalEngine({"dtype": dtype, "max_num_seqs": 4, "max_model_len": 64}, sleep=True)
        engine.start(tmp_path, policy)
        return engine, engine._llm

    return start


def test_the_process_keeps_its_own_settings(started):
    before = torch.get_num_threads(), torch.set_num_threads, torch.get_float32_matmul_precision()
    started()
    now = torch.get_num_threads(), torch.set_num_threads, torch.get_float32_matmul_precision()
    assert now == before


@pytest.mark.parametrize(("dtype", "want"), [("float32", "ieee"), ("bfloat16", None)])
def test_an_engine_in_float32_multiplies_in_float32(started, dtype, want):
    started(dtype)
    assert os.environ.get("TRITON_F32_DEFAULT") == want


def test_what_the_user_set_for_triton_stays(started, monkeypatch):
    monkeypatch.setenv("TRITON_F32_DEFAULT", "tf32x3")
    started()
    assert os.environ["TRITON_F32_DEFAULT"] == "tf32x3"


def test_a_sleeping_engine_is_woken_to_be_shut_down(started):
    engine, llm = started()
    engine._on_gpu = True
    engine.rest()
    engine.close()
    assert llm.calls == ["sleep", "wake_up", "shutdown"]


def test_one_that_is_awake_is_only_shut_down(started):
    engine, llm = started()
    engine.close()
    assert llm.calls == ["shutdown"]


def test_one_that_cannot_wake_is_shut_down_all_the_same(started):
    engine, llm = started()
    engine._on_gpu = True
    engine.rest()

    def wake_up():
        raise RuntimeError("CUDA Error: out of memory")

    llm.wake_up = wake_up
    with pytest.warns(UserWarning, match="could not be woken to be shut down: CUDA Error"):
        engine.close()
    assert llm.calls == ["sleep", "shutdown"]


def test_weights_are_loaded_by_the_worker_under_its_configuration():
    calls = []

    class Worker(Extension):
        """A worker whose runner must not be asked."""

        model_runner = SimpleNamespace(get_model=lambda: torch.nn.Linear(1, 1))

        def reload_weights(self, weights_iterator):
            calls.extend(weights_iterator)

    worker = Worker()
    worker.alignkit_load([("a", 1), ("b", 2)], "t/3")
    assert calls == [("a", 1), ("b", 2)]
    assert worker.alignkit_version() == "t/3"
