"""vLLM on a real GPU: shared with the learner and asleep between batches, or a process of its own.

    pip install -e '.[vllm,test]' && pytest -m gpu tests/gpu

One card of 16 GB or more does. The engine's numbers are held against the policy's own forward pass
on the same card; float32, so that the two may differ by rounding alone.
"""

import math
import os
import subprocess
import sys
from collections import Counter

import pytest

from alignkit import AlignkitError
from alignkit.protocols import Sampling
from alignkit_vllm import VllmRollout, machine

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]

LONG = tuple(5 + i % 80 for i in range(300))
GREEDY = Sampling(temperature=0.0, max_tokens=24)
SHARED = {"gpu_memory_utilization": 0.3, "max_num_seqs": 64, "check_every": 1}


def make_policy(folder, **how):
    from alignkit_hf import HfPolicy

    return HfPolicy(path=str(folder), device="cuda:0", **how).build()


@pytest.fixture
def needs_vllm(cuda):
    """Skip where vLLM is not installed; return torch."""
    if lacking := list(machine.lacking(1)):
        pytest.skip(lacking[0])
    return cuda


@pytest.fixture(scope="module")
def served(cuda, wide_folder):
    """An engine beside the policy; vLLM starts once per process."""
    if lacking := list(machine.lacking(1)):
        pytest.skip(lacking[0])
    policy = make_policy(wide_folder)
    backend = VllmRollout(**SHARED).build()
    backend.start(policy)
    yield backend, policy
    backend.close()


def update(policy):
    import torch

    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    policy.version += 1


def assert_same(policy, prompt, completion, within=1e-3):
    """Greedy tokens and log-probs are the policy's own."""
    import torch

    row = torch.tensor([[*prompt, *completion.token_ids]], device="cuda:0")
    with torch.no_grad(), policy.autocast():
        logits = policy.model(row).logits[0, len(prompt) - 1 : -1].float()
    scores = logits.log_softmax(-1)
    want = scores.gather(1, row[0, len(prompt) :, None])[:, 0].cpu()
    assert (torch.tensor(completion.logprobs) - want).abs().max() < within
    best = scores.max(-1).values.cpu()
    assert (best - want).max() < within, "is not the most probable token"
    assert completion.weight_version == policy.version


def assert_updates_arrive(backend, policy, within):
    for _ in range(3):
        update(policy)
        backend.sync(policy)
        ((found,),) = backend.generate([LONG], GREEDY)
        assert_same(policy, LONG, found, within)


def test_five_updates_in_a_row_reach_an_engine_that_slept_between_them(served):
    backend, policy = served
    for _ in range(5):
        update(policy)
        backend.sync(policy)  # checks columns and the greedy probe each time
        for _ in range(2):  # the second wakes the engine and takes the weights again
            ((found,),) = backend.generate([LONG], GREEDY)
            assert_same(policy, LONG, found)
    assert max(backend.gaps) < 1e-3


def test_the_engine_gives_its_memory_back_while_the_policy_learns(served, cuda):
    backend, policy = served
    backend.sync(policy)
    cuda.cuda.empty_cache()
    awake, total = cuda.cuda.mem_get_info()
    backend.generate([LONG], Sampling(max_tokens=4))
    cuda.cuda.empty_cache()
    asleep, _ = cuda.cuda.mem_get_info()
    assert asleep - awake > 0.2 * total


def test_groups_come_as_they_finish_and_the_engine_rests_after_the_last(served):
    backend, policy = served
    backend.sync(policy)
    short, long = tuple([7] * 1020), tuple([8] * 20)  # 4 tokens of room, and 300
    stream = backend.stream([long, short], Sampling(max_tokens=300, min_tokens=300))
    assert next(stream)[0] == 1
    assert backend._engine.progress() == "1 responses unfinished"
    assert [i for i, _ in stream] == [0]
    assert backend._engine._asleep


def test_hf_and_vllm_draw_from_one_distribution(served):
    from alignkit_hf import HfRollout

    backend, policy = served
    hf = HfRollout().build()
    hf.start(policy)
    how = Sampling(n=2000, max_tokens=2, seed=11, step=1)
    (ours,), (theirs,) = backend.generate([LONG[:30]], how), hf.generate([LONG[:30]], how)
    assert excess(ours, theirs) < 4


def excess(a, b):
    """Standard deviations by which chi-square of the first tokens exceeds its mean."""
    counts = [Counter(c.token_ids[0] for c in group) for group in (a, b)]
    common = [t for t in counts[0] | counts[1] if sum(c[t] for c in counts) >= 10]
    terms = [(counts[0][t] - counts[1][t]) ** 2 / (counts[0][t] + counts[1][t]) for t in common]
    freedom = len(common) - 1
    return (sum(terms) - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("how", [{"top_p": 0.6}, {"top_k": 3}, {"min_p": 0.3}], ids=str)
def test_logprobs_are_of_the_distribution_that_was_cut(served, cuda, how):
    backend, policy = served
    (found,) = backend.generate([LONG[:20]], Sampling(n=8, max_tokens=1, seed=3, **how))
    row = cuda.tensor([LONG[:20]], device="cuda:0")
    with cuda.no_grad():
        p = policy.model(row).logits[0, -1].double().softmax(-1).cpu()
    order = p.argsort(descending=True)
    before = p[order].cumsum(0) - p[order]
    kept = {
        "top_p": order[before < 0.6], "top_k": order[:3], "min_p": order[p[order] >= 0.3 * p.max()]
    }[next(iter(how))]  # fmt: skip
    for completion in found:
        (token,) = completion.token_ids
        assert token in kept.tolist()
        want = float((p[token] / p[kept].sum()).log())
        assert completion.logprobs[0] == pytest.approx(want, abs=1e-3)


def test_a_process_of_its_own_takes_weights_over_a_socket(needs_vllm, wide_folder):
    policy = make_policy(wide_folder, autocast="bfloat16")  # as a policy of real size learns
    backend = VllmRollout(mode="server", weights="socket", **SHARED).build()
    try:
        backend.start(policy)
        assert_updates_arrive(backend, policy, within=0.5)
        assert max(backend.gaps) < 0.1
        assert backend.computed == {"weights": 'a socket: rollout.weights = "socket"'}
    finally:
        backend.close()


WAYS = {
    "server": (1, {"mode": "server"}, "CUDA IPC: the engine is on the policy's card"),
    "named": (1, {"mode": "device", "devices": ("0",)}, "CUDA IPC: the engine is on"),
    "device": (2, {"mode": "device"}, "NCCL: the engine has a card of its own"),
    "split": (3, {"mode": "device", "tensor_parallel_size": 2}, "NCCL: the engine has 2 cards"),
    "engines": (
        3,
        {"mode": "device", "engines": 2},
        "NCCL: the engine has 2 cards of its own; one",
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", WAYS)
def test_processes_of_their_own_take_weights_by_vllm_s_transfer(
    needs_vllm, wide_folder, kind, dtype
):
    """From memory on the policy's card; with further cards, by NCCL to these."""
    cards, keys, way = WAYS[kind]
    if needs_vllm.cuda.device_count() < cards:
        pytest.skip(f"needs {cards} GPUs")
    if "devices" in keys:
        keys = {**keys, "devices": tuple(machine.visible_here()[:1])}
    policy = make_policy(wide_folder, **({} if dtype == "float32" else {"autocast": dtype}))
    backend = VllmRollout(**keys, **SHARED).build()
    try:
        backend.start(policy)
        assert_updates_arrive(backend, policy, within=1e-3 if dtype == "float32" else 0.5)
        assert backend.computed["weights"].startswith(way)
    finally:
        backend.close()


def test_merged_adapters_arrive_by_vllm_s_transfer(needs_vllm, wide_folder):
    from alignkit_hf import HfPolicy, Lora

    pytest.importorskip("peft")
    params = HfPolicy(path=str(wide_folder), device="cuda:0")
    policy = params.build(lora=Lora(rank=4).build())
    backend = VllmRollout(mode="server", **SHARED).build()
    try:
        backend.start(policy)
        assert_updates_arrive(backend, policy, within=1e-3)
    finally:
        backend.close()


def test_an_engine_that_dies_comes_back_with_the_weights(needs_vllm, wide_folder):
    policy = make_policy(wide_folder)
    backend = VllmRollout(mode="server", **SHARED).build()
    try:
        backend.start(policy)
        backend._engine.kill()
        assert_updates_arrive(backend, policy, within=1e-3)
        assert backend.computed["weights"].startswith("CUDA IPC")
    finally:
        backend.close()


def test_more_memory_than_is_free_is_refused_before_the_start(needs_vllm, wide_folder):
    torch = needs_vllm
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(int(free * 0.5), dtype=torch.uint8, device="cuda:0")
    backend = VllmRollout(gpu_memory_utilization=0.9).build()
    with pytest.raises(AlignkitError, match=r"GiB are free: .*set gpu_memory_utilization = 0\.\d"):
        backend.start(make_policy(wide_folder))
    backend.close()
    del taken


STARTS = """
import sys
from alignkit.protocols import Sampling
from alignkit_hf import HfPolicy
from alignkit_vllm import VllmRollout
policy = HfPolicy(path=sys.argv[1]).build()
backend = VllmRollout(gpu_memory_utilization=0.2).build()
backend.start(policy)
print(len(backend.generate([[5, 6]], Sampling(max_tokens=3, min_tokens=3))[0][0].token_ids))
backend.close()
"""


@pytest.mark.parametrize("whole", [True, False], ids=["uuid", "beginning of it"])
def test_a_device_named_by_its_uuid(needs_vllm, wide_folder, whole):
    gpus = machine.gpus()
    if not gpus or not gpus[0].uuid:
        pytest.skip("nvidia-smi does not tell UUIDs here")
    name = (*gpus[0].slices[:1], gpus[0].uuid)[0]
    visible = name if whole else name[:12]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STARTS, str(wide_folder)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": visible},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "3"
