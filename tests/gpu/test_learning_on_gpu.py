"""Learning on a CUDA device against float32 on the CPU: numbers, kernels, memory.

pytest -m gpu tests/gpu/test_learning_on_gpu.py
"""

import copy

import pytest

from alignkit.engine.tokens import TrainRow

pytestmark = pytest.mark.gpu

PROMPTS = (tuple(range(5, 45)), tuple(range(60, 77)), (9,))
ROWS = [
    TrainRow(PROMPTS[i % 3], tuple(5 + (7 * i + 11 * j) % 80 for j in range(3 + 9 * i)), a)
    for i, a in enumerate((1.0, -0.5, 0.25, 2.0, -1.0, 0.5))
]


def policy(folder, device, **how):
    from alignkit_hf import HfPolicy

    return HfPolicy(path=str(folder), device=device, **how).build()


def learned(policy, steps=1, **optimizer):
    """Return the metrics of each step and the change of every weight."""
    from alignkit.engine.learning.learner import Learner
    from alignkit.engine.learning.objective import Objective
    from alignkit_losses import Reinforce
    from alignkit_normalizers import TokenMean
    from alignkit_optimizers import AdamW

    before = {k: v.detach().clone().cpu().float() for k, v in policy.model.named_parameters()}
    learner = Learner(
        policy,
        AdamW(**{"lr": 1e-3, "max_grad_norm": 1e9, **optimizer}).build(),
        token_budget=256,
        total_steps=steps,
    )
    objective = Objective.of(Reinforce().build(), TokenMean().build())
    metrics = [learner.step(ROWS, objective) for _ in range(steps)]
    after = {k: v.detach().cpu().float() for k, v in policy.model.named_parameters()}
    return metrics, {k: after[k] - before[k] for k in before}


def gradients(policy):
    """Return log-probs and gradients of their weighted sum, on the CPU in float32."""
    import torch

    from alignkit.engine.forward.logprobs import response_logprobs

    logprobs, _, mask = response_logprobs(policy, ROWS)
    kept = logprobs[mask]
    (kept @ torch.linspace(-1, 2, len(kept), device=kept.device, dtype=kept.dtype)).backward()
    grads = {k: p.grad.float().cpu() for k, p in policy.model.named_parameters()}
    policy.model.zero_grad()
    return kept.detach().float().cpu(), grads


def worst(got, want):
    """Return the largest difference as a share of what it should be, in L2 norm, by weight."""
    return max(float((got[k] - want[k]).norm() / want[k].norm()) for k in want)


@pytest.mark.parametrize(
    ("how", "apart"),
    [
        ({}, 1e-3),
        ({"gradient_checkpointing": True}, 1e-3),
        ({"autocast": "bfloat16"}, 0.1),
        ({"dtype": "bfloat16"}, 0.15),
        ({"dtype": "bfloat16", "gradient_checkpointing": True}, 0.15),
    ],
    ids=["float32", "recomputed", "autocast", "bfloat16", "bfloat16 recomputed"],
)
def test_gradients_are_those_of_the_cpu_in_float32(cuda, wide_folder, how, apart):
    cuda.backends.cuda.matmul.allow_tf32 = False
    want, wanted = gradients(policy(wide_folder, "cpu"))
    got, grads = gradients(policy(wide_folder, "cuda", **how))
    assert float((got - want).abs().max()) < 10 * apart
    assert worst(grads, wanted) < apart


def test_the_variable_length_kernel_is_used_in_16_bits_and_agrees(cuda, wide_folder, monkeypatch):
    from alignkit.engine.forward import varlen

    subject = policy(wide_folder, "cuda", dtype="bfloat16")
    calls = []
    kernel = varlen.kernel
    monkeypatch.setattr(varlen, "kernel", lambda *x: calls.append(None) or kernel(*x))
    got, grads = gradients(subject)
    assert calls
    monkeypatch.setattr(varlen, "usable", lambda *_: False)
    want, wanted = gradients(subject)
    assert float((got - want).abs().max()) < 0.2
    assert worst(grads, wanted) < 0.1


@pytest.mark.parametrize("implementation", ["fused", "foreach", "offload", "8bit"])
def test_optimizers_move_weights_as_on_the_cpu(cuda, wide_folder, implementation):
    if implementation == "8bit":
        pytest.importorskip("bitsandbytes")
    _, want = learned(policy(wide_folder, "cpu"), steps=3, implementation="foreach")
    _, got = learned(policy(wide_folder, "cuda"), steps=3, implementation=implementation)
    loose = 0.3 if implementation == "8bit" else 0.02
    near = [float((got[k] - want[k]).norm() / want[k].norm()) for k in want]
    assert max(near) < loose


@pytest.mark.parametrize(("implementation", "share"), [("offload", 0), ("8bit", 0.5), ("fused", 2)])
def test_memory_of_the_state_on_the_device(cuda, wide_folder, implementation, share):
    """As a share of the weights', float32: two numbers each, a byte each, none at all."""
    if implementation == "8bit":
        pytest.importorskip("bitsandbytes")
    from alignkit_optimizers import AdamW

    weights = [cuda.nn.Parameter(cuda.ones(2**20, device="cuda")) for _ in range(4)]
    optimizer, _ = AdamW(implementation=implementation).build().start(weights, total_steps=1)
    for weight in weights:
        weight.grad = cuda.ones_like(weight)
    before = cuda.cuda.memory_allocated()
    optimizer.step()
    held = (cuda.cuda.memory_allocated() - before) / (4 * 2**20 * 4)
    assert held == pytest.approx(share, abs=0.05)


def test_an_offloaded_reference_comes_and_goes(cuda, wide_folder):
    from alignkit.engine.forward.frozen import FrozenPolicy, detached_logprobs

    subject = policy(wide_folder, "cuda")
    kept = FrozenPolicy.of(subject, copied=True)
    want = detached_logprobs(kept, ROWS, token_budget=256, temperature=1.0)
    del kept
    before = cuda.cuda.memory_allocated()
    frozen = FrozenPolicy.of(subject, copied=True, offload=True)
    assert cuda.cuda.memory_allocated() - before < 2**16  # buffers
    assert all(p.is_pinned() for p in frozen.model.parameters())
    got = detached_logprobs(frozen, ROWS, token_budget=256, temperature=1.0)
    assert all(cuda.equal(a, b) for a, b in zip(got, want, strict=True))
    assert cuda.cuda.memory_allocated() - before < 2**16


def test_speed_and_peak_memory_are_metered(cuda, wide_folder):
    from alignkit.engine.observing.clock import Clock
    from alignkit.engine.observing.metering import tabled, throughput

    subject, clock = policy(wide_folder, "cuda", dtype="bfloat16"), Clock()
    with clock("update"):
        learned(subject)
    found = throughput(clock.meter, clock.seconds["update"], subject)
    assert found["memory/peak_mib"] < 2**12
    assert found["train/tokens_per_second"] > 0
    if tabled(cuda.cuda.get_device_name()):
        assert 0 < found["train/mfu"] < 1


def test_a_copy_for_sampling_is_on_the_device(cuda, wide_folder):
    from alignkit_hf.policy.served import Served

    subject = policy(wide_folder, "cuda")
    served = Served(subject)
    start = copy.deepcopy(served.model.state_dict())
    learned(subject)
    assert all(cuda.equal(v, start[k]) for k, v in served.model.state_dict().items())
    served.take()
    assert all(cuda.equal(v, served.model.state_dict()[k]) for k, v in subject.weights())
    assert {p.device.type for p in served.model.parameters()} == {"cuda"}


@pytest.mark.parametrize("recomputed", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize(
    ("how", "apart"), [({}, 2e-3), ({"autocast": "bfloat16"}, 0.1)], ids=["float32", "autocast"]
)
def test_layers_by_inductor_are_right(cuda, wide_folder, how, apart, recomputed):
    from alignkit.engine.forward import compiling

    want = gradients(policy(wide_folder, "cpu"))
    subject = policy(
        wide_folder, "cuda", compile="always", gradient_checkpointing=recomputed, **how
    )
    assert compiling.chosen(subject).startswith("compiled")
    got = gradients(subject)
    assert float((got[0] - want[0]).norm() / want[0].norm()) < apart
    assert worst(got[1], want[1]) < apart


@pytest.mark.parametrize("compiled", ["never", "always"])
def test_masters_by_inductor_and_without_learn_what_float32_does(cuda, wide_folder, compiled):
    from alignkit.engine.ranks.shards import updated_of

    subject = policy(wide_folder, "cuda", dtype="bfloat16", masters=True, compile=compiled)
    plain = policy(wide_folder, "cpu")
    before = {k: v.detach().clone() for k, v in plain.model.named_parameters()}
    learned(subject)
    learned(plain)
    moved = {k: p.detach() - before[k] for k, p in plain.model.named_parameters()}
    masters = {k: v.cpu() - before[k] for k, v in updated_of(subject.model).weights().items()}
    alike = [torch_cosine(masters[k], moved[k]) for k in moved if float(moved[k].norm()) > 0]
    assert min(alike) > 0.5  # AdamW's first step is a sign: gradients near zero may turn
    assert sum(alike) / len(alike) > 0.9


def torch_cosine(a, b):
    import torch

    return float(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0))
