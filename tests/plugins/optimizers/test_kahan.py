"""Updates that are too small for a bfloat16 weight add up all the same."""

import pytest
import torch

from alignkit_optimizers import AdamW


def moved(implementation, dtype, steps=1000, lr=1e-5):
    """Where a weight of 1.0 is after steps of one size and direction (Adam's are lr each)."""
    weight = torch.nn.Parameter(torch.ones(4, dtype=dtype))
    params = AdamW(lr=lr, implementation=implementation, max_grad_norm=1.0)
    optimizer, schedule = params.build().start([weight], total_steps=steps)
    for _ in range(steps):
        weight.grad = torch.full_like(weight, 0.5)
        optimizer.step()
        schedule.step()
    return weight.detach().float()[0].item()


def test_a_weight_of_one_moves():
    """1,000 steps of 1e-5 are 0.01; bfloat16 has no number between 1 and 1 - 2^-8."""
    assert moved("fused", torch.bfloat16) == 1.0
    want = moved("fused", torch.float32)
    assert want == pytest.approx(0.99, abs=1e-4)
    # Below 1 the numbers are 2^-8 apart; the nearest is half of that away, and rounding is less.
    assert moved("kahan", torch.bfloat16) == pytest.approx(want, abs=2**-8)
    assert moved("kahan", torch.float32) == pytest.approx(want, abs=1e-6)


def test_training_in_bfloat16_ends_near_float32s():
    """On a regression whose weights near 1 need small updates; plain bfloat16 stalls far off."""

    def error(implementation, dtype):
        torch.manual_seed(0)
        x = torch.randn(256, 32)
        target = 1 + 0.02 * torch.randn(32)
        weight = torch.nn.Parameter(torch.ones(32, dtype=dtype))
        params = AdamW(lr=1e-4, implementation=implementation)
        optimizer, schedule = params.build().start([weight], total_steps=600)
        for _ in range(600):
            loss = ((x @ weight.float() - x @ target) ** 2).mean()
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        return float(((x @ weight.detach().float() - x @ target) ** 2).mean())

    plain, kahan = error("fused", torch.bfloat16), error("kahan", torch.bfloat16)
    whole = error("fused", torch.float32)
    assert whole < kahan < 0.05 * plain


def test_what_is_lost_is_kept_across_a_checkpoint():
    def started():
        weight = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
        params = AdamW(lr=1e-5, implementation="kahan")
        return weight, params.build().start([weight], total_steps=400)[0]

    def step(weight, optimizer, count):
        for _ in range(count):
            weight.grad = torch.full_like(weight, 0.5)
            optimizer.step()

    whole, optimizer = started()
    step(whole, optimizer, 400)
    cut, first = started()
    step(cut, first, 150)
    resumed, second = started()
    resumed.data.copy_(cut.data)
    second.load_state_dict(first.state_dict())
    assert second.state[resumed]["exp_avg"].dtype == torch.float32
    step(resumed, second, 250)
    assert torch.equal(resumed, whole)
    assert float(whole[0].detach()) < 1
