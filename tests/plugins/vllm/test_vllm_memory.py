"""GPU memory, reckoned by hand: what is refused before the start, what is advised after."""

import subprocess
from types import SimpleNamespace

import pytest
import torch

from alignkit import AlignkitError
from alignkit_hf import HfPolicy
from alignkit_vllm import machine, memory
from alignkit_vllm.engines.local import LocalEngine
from alignkit_vllm.engines.process import Child
from alignkit_vllm.engines.server import ServerEngine
from alignkit_vllm.memory import GIB, Needs, advice_on_oom, explain, memory_problem, needs_of

# Qwen2.5-Math-1.5B in bfloat16: 28 layers, 2 key-value heads of 128 numbers of 2 bytes, keys and
# values: 2 * 28 * 2 * 128 * 2 = 28,672 bytes a token (with 12 query heads it would be 172,032);
# 1.54 billion weights of 2 bytes are 2.875 GiB.
QWEN = Needs(weights=int(2.875 * GIB), per_token=28_672, length=4096)
OPTIONS = {"gpu_memory_utilization": 0.45, "max_model_len": 4096, "dtype": "bfloat16"}


def test_needs_follow_from_the_configuration(tiny_folder):
    policy = HfPolicy(path=str(tiny_folder)).build()
    config = policy.model.config
    size = config.hidden_size // config.num_attention_heads
    found = needs_of(policy, {"dtype": "bfloat16", "max_model_len": 64})
    heads = config.num_key_value_heads
    assert heads != config.num_attention_heads
    assert found.per_token == 2 * config.num_hidden_layers * heads * size * 2
    assert found.weights == 2 * sum(p.numel() for p in policy.model.parameters())
    assert found.least == found.weights + memory.WORK + 64 * found.per_token
    wide = needs_of(policy, {"dtype": "float32", "max_model_len": 64, "tensor_parallel_size": 2})
    assert wide.weights == found.weights  # twice the bytes, half the weights
    assert wide.per_token == 2 * config.num_hidden_layers * (heads // 2) * size * 4


@pytest.mark.parametrize(
    ("free", "total", "share", "words"),
    [
        # 95 % of 30 GiB are 28.5, of 80 GiB: 0.356.
        (30, 80, 0.5, ["is 40.0 GiB", "30.0 of 80.0 GiB are free", "_utilization = 0.35 in"]),
        # 0.15 of 24 GiB are 3.6. Needed: 2.875 + 2 + 4096 * 28,672 / 2**30 = 0.109: 4.98 GiB,
        # 0.2077 of 24; with a tenth on top 0.228, up to 0.23.
        (20, 24, 0.15, ["is 3.6 GiB", "needs about 5.0 GiB", "_utilization = 0.23 in"]),
        # 95 % of 5.2 GiB are 0.205 of 24, down to 0.20 = 4.8 GiB: below the 4.875 of weights and
        # work, so that no length fits.
        (5.2, 24, 0.45, ["does not fit into the free memory", 'mode = "device"']),
        # 6 GiB free of 24: 0.2375, down to 0.23 = 5.52 GiB. That is enough: take all of it.
        (6, 24, 0.45, ["_utilization = 0.23 in"]),
        (2, 80, 0.5, ["does not fit into the free memory"]),
        (40, 80, 0.45, []),
    ],
)
def test_memory_is_looked_at_before_the_start(free, total, share, words):
    message = memory_problem(int(free * GIB), int(total * GIB), share, QWEN)
    assert (message is None) == (not words)
    assert all(word in message for word in words), message


def test_a_shorter_model_length_is_named_where_that_is_what_fits():
    # 131,072 tokens take 3.5 GiB: with 2.875 + 2 that is 8.375. 8 GiB are free of 24: 0.316, down
    # to 0.31 = 7.44 GiB; 2.565 GiB of it for the cache hold 96,056 tokens, in blocks of 16: 96,048.
    long = Needs(QWEN.weights, QWEN.per_token, 131_072)
    message = memory_problem(8 * GIB, 24 * GIB, 0.45, long)
    budget = 0.31 * 24 * GIB - QWEN.weights - 2 * GIB
    assert budget / QWEN.per_token == pytest.approx(96_056, abs=16)
    assert f"max_model_len = {int(budget / QWEN.per_token) // 16 * 16} in [rollout]" in message
    assert "gpu_memory_utilization = 0.31 and" in message


NO_CACHE = (
    "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
    "initializing the engine"
)
SMALL_CACHE = (
    "To serve at least one request with the model's max seq len (4096), (0.11 GiB KV cache is "
    "needed, which is larger than the available KV cache memory (0.05 GiB). Based on the available "
    "memory, the estimated maximum model length is 1872. Try increasing `gpu_memory_utilization`"
)
TAKEN = (
    "Free memory on device cuda:0 (30.0/80.0 GiB) on startup is less than desired GPU memory "
    "utilization (0.45, 36.0 GiB). Decrease GPU memory utilization"
)
OUT = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 24.00 GiB"


@pytest.mark.parametrize(
    ("text", "gpu", "words"),
    [
        # The share that failed and a tenth: 0.45 * 1.1 = 0.495.
        (NO_CACHE, (20, 24), "set gpu_memory_utilization = 0.50 in"),
        (NO_CACHE, None, "set gpu_memory_utilization = 0.60 in"),
        (SMALL_CACHE, (20, 24), "set gpu_memory_utilization = 0.60 or max_model_len = 1872"),
        (TAKEN, None, "set gpu_memory_utilization = 0.35 in"),  # of the text's 30.0 and 80.0
        # 2 GiB asked for, 1 free: 1 * 1.25 / 24 = 0.052 less, and 0.02 for luck: 0.378.
        (OUT, (1, 24), "set gpu_memory_utilization = 0.37 in"),
        (OUT, None, "set gpu_memory_utilization = 0.35 in"),
        (OUT, (1, 24), "halve token_budget"),
    ],
)
def test_an_engine_out_of_memory_says_what_to_turn_and_to_what(text, gpu, words):
    gpu = gpu and tuple(size * GIB for size in gpu)
    found = explain(text, OPTIONS, QWEN, gpu)
    assert words in found
    assert text[:40] in found, "the engine's own words belong to the message"


def test_a_share_that_cannot_shrink_shortens_sequences_instead():
    # 0.25 of 24 GiB less 0.052 and 0.02 is 0.17 = 4.08 GiB: below the 4.98 needed, and nothing
    # is left for a cache beside 4.875.
    options = {**OPTIONS, "gpu_memory_utilization": 0.25}
    assert "does not fit" in explain(OUT, options, QWEN, (GIB, 24 * GIB))
    # 131,072 tokens: 0.37 of 24 GiB are 8.88, enough for the 8.375; 0.30 are 7.2: not.
    long = Needs(QWEN.weights, QWEN.per_token, 131_072)
    fits = int((0.30 * 24 * GIB - QWEN.weights - 2 * GIB) / QWEN.per_token) // 16 * 16
    options = {**OPTIONS, "gpu_memory_utilization": 0.38}
    words = f"gpu_memory_utilization = 0.30 and max_model_len = {fits} in"
    assert words in explain(OUT, options, long, (GIB, 24 * GIB))


def test_a_cpu_s_cache_has_a_key_of_its_own():
    # Twice the 64 MiB that were too few; 1.25 * 4096 * 28,672 are 140 MiB = 0.137 GiB: 3/16.
    options = {"kv_cache_memory_bytes": 64 * 2**20, "max_model_len": 4096}
    assert "set kv_cache_gib = 0.1875 or max_model_len = 1872" in explain(
        SMALL_CACHE, options, QWEN
    )


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, ValueError, RuntimeError])
def test_errors_of_memory_are_explained_and_others_pass(error, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = r"set gpu_memory_utilization = 0\.35"
    with pytest.raises(AlignkitError, match=words) as raised, advice_on_oom(OPTIONS, QWEN):
        raise error(OUT)
    assert isinstance(raised.value.__cause__, error)
    with pytest.raises(error, match=r"^odd$"), advice_on_oom(OPTIONS, QWEN):
        raise error("odd")


# ---------------------------------------------------------------- the engines


def on_a_gpu(free, total, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free * GIB, total * GIB))


def test_an_engine_here_is_not_started_without_memory(monkeypatch):
    on_a_gpu(5, 24, monkeypatch)
    engine = LocalEngine(OPTIONS, sleep=True)
    with pytest.raises(AlignkitError, match=r"gpu_memory_utilization = 0\.45 is 10\.8 GiB"):
        engine._look_at_memory(QWEN)
    on_a_gpu(20, 24, monkeypatch)
    assert engine._look_at_memory(QWEN) == (20 * GIB, 24 * GIB)


@pytest.mark.parametrize("name", ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"])
@pytest.mark.parametrize("sleep", [True, False])
def test_an_engine_that_sleeps_starts_with_segments_that_grow(monkeypatch, tmp_path, name, sleep):
    """vLLM 0.32 switches them off in its own pool, and reads either variable."""
    on_a_gpu(20, 24, monkeypatch)
    monkeypatch.setenv(name, "expandable_segments:True")
    started = []
    fake = SimpleNamespace(LLM=lambda **options: started.append(options))
    monkeypatch.setattr("alignkit_vllm.engines.local.import_module", lambda name: fake)
    monkeypatch.setattr("alignkit_vllm.memory.needs_of", lambda policy, options: QWEN)
    weight = SimpleNamespace(device=torch.device("cuda", 0))
    policy = SimpleNamespace(model=SimpleNamespace(parameters=lambda: iter([weight])))
    LocalEngine(OPTIONS, sleep=sleep).start(tmp_path, policy)
    assert [options["enable_sleep_mode"] for options in started] == [sleep]


def test_a_batch_that_runs_out_of_memory_says_what_to_turn(monkeypatch):
    on_a_gpu(1, 24, monkeypatch)
    engine = LocalEngine(OPTIONS, sleep=False)
    engine._needs = QWEN

    def step():
        raise torch.OutOfMemoryError(OUT)

    engine._llm = SimpleNamespace(
        enqueue=lambda *_, use_tqdm: ["0-aa"],
        llm_engine=SimpleNamespace(step=step, abort_request=lambda names, *, internal: None),
    )
    monkeypatch.setattr("alignkit_vllm.engines.local._sampling", lambda requests: requests)
    with pytest.raises(AlignkitError, match=r"set gpu_memory_utilization = 0\.37 in \[rollout\]"):
        list(engine.stream([SimpleNamespace(prompt=(1,))]))


@pytest.mark.parametrize("part", ["weights", "kv_cache"])
def test_an_engine_that_cannot_wake_for_lack_of_memory_says_what_to_turn(monkeypatch, part):
    on_a_gpu(1, 24, monkeypatch)
    engine = LocalEngine(OPTIONS, sleep=True)
    engine._needs, engine._asleep = QWEN, True
    calls = []

    def wake_up(tags):
        calls.append(*tags)
        if tags == [part]:  # as vLLM's allocator for sleeping says it
            raise RuntimeError("CUDA Error: out of memory at csrc/cumem_allocator.cpp:62")

    engine._llm = SimpleNamespace(
        wake_up=wake_up, collective_rpc=lambda method, args: calls.append(method)
    )
    model = SimpleNamespace(state_dict=dict)
    with pytest.raises(AlignkitError, match=r"set gpu_memory_utilization = 0\.35 in \[rollout\]"):
        engine.load(SimpleNamespace(model=model), torch.bfloat16, "a/1")
    assert calls == ["weights", "alignkit_load", "kv_cache"][: 1 if part == "weights" else 3]
    assert engine.holds() == "", "half awake is not awake"


TABLE = "0, GPU-aa, 20480, 24576\n1, GPU-bb, 4096, 24576\n"


@pytest.fixture
def smi(monkeypatch):
    def run(command, **_):
        assert command[0] == "nvidia-smi"
        return SimpleNamespace(stdout=TABLE)

    monkeypatch.setattr(subprocess, "run", run)


def server(monkeypatch, tiny_folder, devices):
    made = ServerEngine(
        url=None,
        visible=devices,
        options=OPTIONS,
        timeouts=(5, 5, 5),
        max_restarts=0,
    )
    monkeypatch.setattr(memory, "needs_of", lambda policy, options: QWEN)
    monkeypatch.setattr(made, "_launch", lambda: None)
    monkeypatch.setattr(made, "_await", lambda: None)
    return made


def test_a_server_is_not_started_on_a_full_gpu(monkeypatch, smi, tiny_folder, tmp_path):
    full = server(monkeypatch, tiny_folder, ["0", "GPU-bb"])
    with pytest.raises(AlignkitError, match=r"but 4\.0 of 24\.0 GiB are free"):
        full.start(tmp_path, None)
    server(monkeypatch, tiny_folder, ["0"]).start(tmp_path, None)  # 20 GiB of it are free


def test_an_index_is_looked_up_only_where_all_gpus_are_alike(smi):
    assert machine.memory_of("1") == (4 * GIB, 24 * GIB)
    mixed = TABLE.replace("4096, 24576", "4096, 81920")
    assert machine.parse_memory(mixed, "1") is None
    assert machine.parse_memory(mixed, "GPU-bb") == (4 * GIB, 80 * GIB)
    assert machine.parse_memory("0, GPU-aa, [N/A], 24576", "0") is None


def test_a_dead_server_s_log_is_read_from_where_the_cause_stands(monkeypatch, smi, tmp_path):
    dead = server(monkeypatch, tmp_path, ["0"])
    dead.visible, dead._needs = ["0"], QWEN
    log = tmp_path / "server.log"
    after = [f"(EngineCore pid=9) frame {i}" for i in range(40)]  # the end shown has 20 lines
    log.write_text("\n".join([f"(EngineCore pid=9) ERROR 11-20 [core.py:1] {NO_CACHE}", *after]))
    dead._child = Child.__new__(Child)
    dead._child.log, dead._child.process = log, SimpleNamespace(poll=lambda: 1)
    message = str(dead._died("ended while starting"))
    assert "set gpu_memory_utilization = 0.50 in [rollout] (No available memory" in message
    assert message.endswith("  | (EngineCore pid=9) frame 39")
