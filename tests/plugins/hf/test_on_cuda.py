"""The same promises on a CUDA device, in float32 and under bf16 autocast."""

import pytest
import torch

from alignkit_hf import HfPolicy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("autocast", ["none", "bfloat16"])
def test_sampled_logprobs_are_those_of_a_plain_forward(tiny_folder, sample, prompts, autocast):
    policy = HfPolicy(path=str(tiny_folder), device="cuda", autocast=autocast).build()
    groups = sample(policy, prompts, 150, n=4, max_tokens=20, seed=1)
    tolerance = 1e-4 if autocast == "none" else 0.1
    for prompt, group in zip(prompts, groups, strict=True):
        for c in group:
            row = torch.tensor([[*prompt, *c.token_ids]], device="cuda")
            with torch.no_grad(), policy.autocast():
                logits = policy.model(row, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
            expected = logits.log_softmax(-1).gather(1, row[0, len(prompt) :, None])[:, 0].cpu()
            assert (torch.tensor(c.logprobs) - expected).abs().max() < tolerance


def test_the_same_call_gives_the_same_tokens(tiny_folder, sample, prompts):
    policy = HfPolicy(path=str(tiny_folder), device="cuda").build()
    how = {"n": 4, "max_tokens": 30, "seed": 3}
    assert sample(policy, prompts, 200, **how) == sample(policy, prompts, 200, **how)
