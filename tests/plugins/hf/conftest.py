"""Small models with opinions: random weights are enlarged, so that attention decides tokens."""

from dataclasses import replace

import pytest


def enlarge(model, factor):
    """Scale every matrix: a freshly initialised model is nearly uniform whatever it attends to."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(factor)


@pytest.fixture
def policy(tiny_folder):
    """The tiny Qwen2 with enlarged weights; each test gets its own."""
    from alignkit_hf import HfPolicy

    policy = HfPolicy(path=str(tiny_folder), device="cpu").build()
    enlarge(policy.model, 6)
    return policy


@pytest.fixture
def sample():
    """``sample(policy, prompts, budget, **fields of Sampling)`` on a fresh backend."""
    from alignkit_hf import HfRollout

    def sample(policy, prompts, budget=2**18, **how):
        backend = HfRollout(kv_cache_tokens=budget).build()
        backend.start(policy)
        return backend.generate(prompts, replace(backend.sampling, **how))

    return sample


@pytest.fixture(scope="session")
def prompts():
    """Five prompts of 1 to 30 tokens of the byte-level vocabulary."""
    lengths = [9, 1, 30, 17, 9]
    return [[(7 * i + 13 * j) % 256 for j in range(k)] for i, k in enumerate(lengths)]
