"""What evaluates and what measures works on the device as the scale recipes learn: by autocast."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignkit.engine.evaluation.entropies import token_entropies
from alignkit.engine.forward import logprobs, varlen

pytestmark = pytest.mark.pretend

BENCH = Path(__file__).resolve().parents[2] / "bench" / "bench_gpu.py"


@pytest.fixture
def passes(monkeypatch):
    """Sizes of the batches that were computed."""
    found, real = [], logprobs.response_logprobs
    monkeypatch.setattr(
        logprobs, "response_logprobs", lambda *x, **how: found.append(len(x[1])) or real(*x, **how)
    )
    return found


@pytest.mark.parametrize("recomputed", [False, True], ids=["kept", "recomputed"])
def test_an_evaluation_counts_a_shared_prompt_once(policy, passes, recomputed):
    """8 responses of 5 tokens to one prompt of 40: 80 tokens packed, padded 8 x 45 = 360."""
    subject = policy(autocast="bfloat16", gradient_checkpointing=recomputed)
    prompt = tuple(range(5, 45))
    sampled = [
        SimpleNamespace(
            prompt_ids=prompt, completion=SimpleNamespace(token_ids=(9, 8, 7, 6, i), given=None)
        )
        for i in range(8)
    ]
    found = token_entropies(subject, sampled, 90)
    assert passes == [8]
    assert [len(e) for e in found] == [5] * 8


def test_the_benchmark_measures_autocast(monkeypatch, capsys):
    kinds, kernel = set(), varlen.kernel

    def seen(q, *given):
        kinds.add(str(q.dtype))
        return kernel(q, *given)

    monkeypatch.setattr(varlen, "kernel", seen)
    words = ["--small", "--rounds", "1", "--part", "learner"]
    monkeypatch.setattr(sys, "argv", [str(BENCH), *words])
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    scope = runpy.run_path(str(BENCH))
    dtypes = set()
    made = scope["make_policy"]

    def make_policy(*given, **how):
        policy = made(*given, **how)
        dtypes.update(str(p.dtype) for p in policy.model.parameters())
        return policy

    scope["Bench"].__init__.__globals__["make_policy"] = make_policy
    scope["main"]()
    assert "learner" in capsys.readouterr().out
    assert dtypes == {"torch.float32"}  # as the recipes' weights
    assert kinds == {"torch.bfloat16"}  # and as their products
