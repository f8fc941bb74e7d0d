"""The first optimizer step, whatever ran before it: right, by the fast passes, without an error.

Models and kernels are tried out when they are first asked for. A trial within a checkpointed layer
would run in the forward pass and not again in the backward pass.
"""

from types import SimpleNamespace

import pytest
import torch

from alignkit.engine.evaluation.entropies import token_entropies
from alignkit.engine.forward import varlen
from alignkit.engine.forward.frozen import FrozenPolicy, detached_logprobs
from alignkit.engine.forward.logprobs import response_logprobs
from alignkit.engine.forward.packable import can_pack
from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.objective import Objective
from alignkit.engine.tokens import TrainRow
from alignkit_hf import HfRollout
from alignkit_losses import Reinforce
from alignkit_normalizers import TokenMean
from alignkit_optimizers import AdamW

pytestmark = pytest.mark.pretend

ROWS = [
    TrainRow(
        tuple(range(5, 12 + i // 2)), tuple(5 + (7 * i + 11 * j) % 80 for j in range(3 + i)), a
    )
    for i, a in enumerate((1.0, -0.5, 0.25, 2.0))
]


def evaluated(policy):
    completion = SimpleNamespace(token_ids=ROWS[0].response_ids, given=None)
    token_entropies(policy, [SimpleNamespace(prompt_ids=(5, 6), completion=completion)], 64)


def sampled(policy):
    backend = HfRollout(max_tokens=3).build()
    backend.start(policy)
    backend.generate([[5, 6, 7]], backend.sampling)
    backend.close()


FIRST = {
    "the learner": lambda policy: None,
    "its log-probs": lambda policy: learner(policy).logprobs(ROWS),
    "a check of weights": lambda policy: torch.no_grad()(response_logprobs)(policy, ROWS[:1]),
    "a copied reference": lambda policy: detached_logprobs(
        FrozenPolicy.of(policy, copied=True), ROWS, token_budget=64, temperature=1.0
    ),
    "an evaluation": evaluated,
    "the rollout backend": sampled,
    "a question outside autocast": lambda policy: can_pack(policy.model),
}


def learner(policy):
    optimizer = AdamW(lr=1e-3, max_grad_norm=1e9, implementation="foreach").build()
    return Learner(policy, optimizer, token_budget=64, total_steps=1)


def gradients(policy):
    """Return the gradients of one step, float32 on the CPU."""
    found = {}
    subject = learner(policy)

    def keep(*_):
        found.update({k: p.grad.cpu().clone() for k, p in policy.model.named_parameters()})

    subject.optimizer.register_step_pre_hook(keep)
    subject.step(ROWS, Objective.of(Reinforce().build(), TokenMean().build()))
    return found


@pytest.fixture(scope="module")
def wanted(small_folder):
    from alignkit_hf import HfPolicy

    return gradients(HfPolicy(path=str(small_folder), device="cpu").build())


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("recomputed", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("autocast", ["none", "bfloat16"])
def test_the_step_is_right_whoever_called_first(
    policy, wanted, monkeypatch, autocast, recomputed, first
):
    subject = policy(autocast=autocast, gradient_checkpointing=recomputed)
    FIRST[first](subject)
    kernel, calls = varlen.kernel, []
    monkeypatch.setattr(varlen, "kernel", lambda *given: calls.append(0) or kernel(*given))
    got = gradients(subject)
    assert bool(calls) == (autocast == "bfloat16")  # packed, by the kernel
    near = 1e-4 if autocast == "none" else 0.1
    for name, want in wanted.items():
        assert float((got[name] - want).norm() / want.norm()) < near, name
