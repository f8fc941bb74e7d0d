"""The embedded policy answers the same through either backend: 2,000 short responses of each."""

import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from alignkit.protocols import Sampling
from alignkit_hf import HfPolicy, HfRollout
from alignkit_vllm import VllmRollout

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

POLICY = Path(__file__).resolve().parents[3] / "data" / "tiny_policy"
QUESTION = "User: Pablo fills 4 boxes with 7 plums each. How many plums?\nAssistant: <think>"


def excess(a, b):
    """Standard deviations by which chi-square of two samples' counts exceeds its mean.

    Responses seen fewer than 10 times are pooled. Above 4 once in some 10,000 equal pairs.
    """
    common = [r for r in a.keys() | b.keys() if a[r] + b[r] >= 10]
    rest = [sum(c.values()) - sum(c[r] for r in common) for c in (a, b)]
    table = torch.tensor([[c[r] for r in common] + [n] for c, n in zip((a, b), rest, strict=True)])
    table = table[:, table.sum(0) > 0].double()
    expected = table.sum(0) * table.sum(1, keepdim=True) / table.sum()
    freedom = table.shape[1] - 1
    assert freedom >= 5, "a sample all alike would agree with anything"
    return float(((table - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom)


def test_the_embedded_policy_says_the_same_with_either_backend():
    policy = HfPolicy(path=str(POLICY)).build()
    prompt = policy.tokenizer.encode(QUESTION)
    vllm, hf = VllmRollout(kv_cache_gib=0.0625).build(), HfRollout().build()
    hf.start(policy)

    def counts(backend, temperature=1.0):
        how = Sampling(n=2000, max_tokens=6, seed=3, step=1, temperature=temperature)
        return Counter(c.token_ids for c in backend.generate([prompt], how)[0])

    try:
        vllm.start(policy)
        ours, warmer = counts(vllm), counts(vllm, temperature=1.3)
    finally:
        vllm.close()
    theirs = counts(hf)
    assert sum(ours.values()) == sum(theirs.values()) == 2000
    assert excess(ours, theirs) < 4
    assert excess(warmer, theirs) > 4  # what the test would say of another temperature
