"""The hf backend from its start to its end."""

import gc
import weakref

import pytest
import torch

from alignkit import AlignkitError
from alignkit_hf import HfRollout
from alignkit_hf.fast.shared import SharedCache
from decoded import greedy, ids


def test_no_prompts(policy, sample):
    assert sample(policy, [], n=3) == []


@pytest.mark.parametrize(
    ("prompts", "how", "message"),
    [
        ([[1], []], {}, "prompt 1 has no tokens"),
        ([[1]], {"n": 0}, "asked for 0 responses"),
        ([[1]], {"stop": ("a", "")}, "a stop string is empty"),
        ([[1]], {"prompt_keys": (1, 2)}, "2 prompt keys for 1 prompts"),
    ],
)
def test_bad_calls(policy, sample, prompts, how, message):
    with pytest.raises(AlignkitError, match=message):
        sample(policy, prompts, **how)


def test_not_started():
    backend = HfRollout().build()
    with pytest.raises(AlignkitError, match="not started"):
        backend.generate([[1]], backend.sampling)


def test_new_weights_speak_after_sync(policy, prompts):
    backend = HfRollout(max_tokens=10, temperature=0).build()
    backend.start(policy)
    before = backend.generate(prompts, backend.sampling)
    with torch.no_grad():
        policy.model.model.layers[0].self_attn.k_proj.weight.neg_()
    policy.version += 1
    backend.sync(policy)
    after = backend.generate(prompts, backend.sampling)
    assert {c.weight_version for group in before for c in group} == {0}
    assert {c.weight_version for group in after for c in group} == {1}
    assert ids(after) != ids(before)
    assert ids(after) == [[tuple(greedy(policy.model, p, 10))] for p in prompts]


def test_close_twice(policy):
    backend = HfRollout().build()
    backend.start(policy)
    backend.close()
    backend.close()
    with pytest.raises(AlignkitError, match="not started"):
        backend.generate([[1]], backend.sampling)


def test_the_model_is_left_as_it_was(policy, sample, prompts):
    policy.model.train()
    rng = torch.get_rng_state()
    sample(policy, prompts, max_tokens=3)
    assert policy.model.training
    assert policy.model.config._attn_implementation == "sdpa"
    assert all(p.requires_grad and p.grad is None for p in policy.model.parameters())
    assert torch.equal(torch.get_rng_state(), rng)  # global generators are not touched
    logits = policy.model(torch.tensor(prompts[:1])).logits
    logits.sum().backward()  # nothing is stuck in inference mode


def test_the_cache_is_gone_after_the_call(policy, prompts):
    backend = HfRollout(max_tokens=3).build()
    backend.start(policy)
    alive = []
    original = SharedCache.__init__

    def remember(self, *args):
        original(self, *args)
        alive.append(weakref.ref(self))

    SharedCache.__init__ = remember
    try:
        backend.generate(prompts, backend.sampling)
    finally:
        SharedCache.__init__ = original
    gc.collect()
    assert [ref() for ref in alive] == [None]


def test_bf16_autocast(policy, sample, prompts):
    """The log-probs are those of a bf16 forward: about 8 bits, so 0.1 of up to 20 nats."""
    policy.autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    groups = sample(policy, prompts, n=2, max_tokens=8, seed=1)
    for prompt, group in zip(prompts, groups, strict=True):
        for c in group:
            row = torch.tensor([[*prompt, *c.token_ids]])
            with torch.no_grad(), policy.autocast():
                logits = policy.model(row).logits[0, len(prompt) - 1 : -1].float()
            expected = logits.log_softmax(-1).gather(1, row[0, len(prompt) :, None])[:, 0]
            assert (torch.tensor(c.logprobs) - expected).abs().max() < 1.0
