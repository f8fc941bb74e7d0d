"""Decoding on a CUDA device: recorded steps give what steps as they come do.

pytest -m gpu tests/gpu/test_decoding_on_gpu.py
"""

import warnings
from dataclasses import replace
from itertools import chain

import pytest

from alignkit.protocols import Sampling

pytestmark = pytest.mark.gpu

PROMPTS = [[5 + (7 * i + 13 * j) % 80 for j in range(k)] for i, k in enumerate((9, 1, 30, 17, 9))]
HOW = {"n": 4, "max_tokens": 48, "seed": 3}


@pytest.fixture
def sample(cuda, wide_folder):
    """``sample(graphs, **how)``: responses and the forward passes they came from."""
    from alignkit_hf import HfPolicy, HfRollout

    def sample(graphs, *, dtype="float32", times=1, **how):
        policy = HfPolicy(path=str(wide_folder), device="cuda", dtype=dtype).build()
        backend = HfRollout(cuda_graphs=graphs).build()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # going on without graphs is a warning
            backend.start(policy)
            sampling = replace(backend.sampling, **{**HOW, **how})
            found = [backend.generate(PROMPTS, sampling) for _ in range(times)]
        return found, backend._paths.fast.forward, policy

    return sample


def ids(groups):
    return [c.token_ids for group in groups for c in group]


def test_the_same_tokens_with_graphs_as_without(cuda, sample):
    cuda.backends.cuda.matmul.allow_tf32 = False
    ((want,), _, _) = sample(False)
    ((got,), forward, _) = sample(True)
    assert forward.usable
    assert not forward._plain
    assert 1 < len(forward._steps) < 12
    same = sum(a == b for a, b in zip(ids(got), ids(want), strict=True))
    assert same >= len(ids(want)) - 1  # a draw on a border may fall the other way
    for a, b in zip(chain(*got), chain(*want), strict=True):
        if a.token_ids == b.token_ids:
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-3)


def test_greedy_in_bfloat16_agrees_with_the_model(cuda, sample):
    ((groups,), _, policy) = sample(True, dtype="bfloat16", n=1, temperature=0.0)
    for prompt, (c,) in zip(PROMPTS, groups, strict=True):
        row = cuda.tensor([[*prompt, *c.token_ids]], device="cuda")
        with cuda.no_grad():
            logits = policy.model(row, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        logprobs = logits.log_softmax(-1).gather(1, row[0, len(prompt) :, None])[:, 0].cpu()
        assert (cuda.tensor(c.logprobs) - logprobs).abs().max() < 0.3


def test_recorded_steps_are_kept_and_see_new_weights(cuda, sample):
    from alignkit_hf.sampling.backend import HfBackend

    ((first, second), _, policy) = sample(True, times=2)
    assert ids(first) == ids(second)
    backend = HfBackend(Sampling(**HOW), kv_cache_tokens=2**18)
    backend.start(policy)
    before = backend.generate(PROMPTS, backend.sampling)
    steps = dict(backend._paths.fast.forward._steps)
    with cuda.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(-1)
    after = backend.generate(PROMPTS, backend.sampling)
    assert backend._paths.fast.forward._steps.keys() >= steps.keys()
    assert ids(after) != ids(before)
    fresh = HfBackend(Sampling(**HOW), kv_cache_tokens=2**18)
    fresh.start(policy)
    assert ids(fresh.generate(PROMPTS, fresh.sampling)) == ids(after)


def test_autocast_is_decoded_without_graphs(cuda, wide_folder):
    from alignkit_hf import HfPolicy, HfRollout

    backend = HfRollout(max_tokens=4).build()
    policy = HfPolicy(path=str(wide_folder), device="cuda", autocast="bfloat16").build()
    backend.start(policy)
    assert not backend._paths.fast.forward.usable
    assert len(backend.generate(PROMPTS, backend.sampling)) == len(PROMPTS)
