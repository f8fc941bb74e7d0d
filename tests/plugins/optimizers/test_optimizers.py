"""AdamW against the paper's update by hand, and the schedules."""

import math

import pytest
import torch

from alignkit import AlignkitError
from alignkit_optimizers import AdamW


def test_defaults_are_those_of_the_assignment():
    params = AdamW()
    assert (params.betas, params.weight_decay, params.max_grad_norm) == ((0.9, 0.95), 0.0, 1.0)


def test_two_steps_by_hand():
    """w 1; gradients 0.5, -0.25; lr 0.1, betas 0.9 0.95, eps 1e-8, decay 0.2."""
    weight = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    params = AdamW(lr=0.1, weight_decay=0.2)
    optimizer, schedule = params.build().start([weight], total_steps=2)
    expected, m, v = 1.0, 0.0, 0.0
    for step, gradient in enumerate([0.5, -0.25], start=1):
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        schedule.step()
        m = 0.9 * m + 0.1 * gradient
        v = 0.95 * v + 0.05 * gradient**2
        m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.95**step)
        expected = expected * (1 - 0.1 * 0.2) - 0.1 * m_hat / (math.sqrt(v_hat) + 1e-8)
        assert weight.item() == pytest.approx(expected, abs=1e-12)
    # First step: 0.98 - 0.1 = 0.88. Decay added to the gradient (plain Adam): 0.9.
    assert expected < 0.88


def test_fused_on_the_cpu():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer, _ = AdamW().build().start([weight], total_steps=1)
    assert optimizer.defaults["fused"] is True


def test_recipe_values_are_taken():
    """TOML gives betas as a list and may give inf."""
    params = AdamW.model_validate({"lr": 1, "betas": [0.8, 0.9], "max_grad_norm": math.inf})
    assert params.betas == (0.8, 0.9)
    assert params.build().max_grad_norm == math.inf


@pytest.mark.parametrize(
    "bad",
    [
        {"lr": 0.0},
        {"lr": "1e-5"},
        {"betas": [0.9, 1.0]},
        {"betas": [0.9]},
        {"betas": ["0.9", "0.95"]},
        {"max_grad_norm": 0.0},
        {"max_grad_norm": math.nan},
        {"schedule": "cos"},
        {"warmup_steps": -1},
        {"min_lr_ratio": 1.5},
    ],
)
def test_bad_values_are_refused(bad):
    with pytest.raises(ValueError, match="validation error"):
        AdamW.model_validate(bad)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # Warm-up over 2 of 6 steps: 0.5, 1 (from zero it would be 0, 0.5); then 4 steps, of which
        # the last uses the floor of 0.1 (with a span of 4 for 3 it would be left at 0.325).
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.7, 0.4, 0.1]),
        # (1 + cos(pi k / 3)) / 2 = 1, 0.75, 0.25, 0 scaled into [0.1, 1].
        ("cosine", [0.5, 1, 1, 0.775, 0.325, 0.1]),
    ],
)
def test_schedules_by_hand(schedule, expected):
    params = AdamW(lr=1.0, schedule=schedule, warmup_steps=2, min_lr_ratio=0.1)
    assert [params.build().lr_factor(6, i) for i in range(6)] == pytest.approx(expected, abs=1e-9)
    # What the torch schedule says is the same, a step at a time.
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer, steps = params.build().start([weight], total_steps=6)
    seen = []
    for _ in range(6):
        seen += steps.get_last_lr()
        optimizer.step()
        steps.step()
    assert seen == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 3])
@pytest.mark.parametrize("total", [4, 5, 100])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 1.0])
def test_the_last_step_uses_the_floor(schedule, warmup, total, ratio):
    params = AdamW(lr=1.0, schedule=schedule, warmup_steps=warmup, min_lr_ratio=ratio)
    factors = [params.build().lr_factor(total, i) for i in range(total)]
    if ratio:
        assert factors[-1] == pytest.approx(1.0 if total - 1 == warmup else ratio, abs=1e-12)
    else:
        assert factors[-1] > 0  # no step is wasted
        assert params.build().lr_factor(total, total) == pytest.approx(0, abs=1e-12)
    assert max(factors) == 1
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)


def test_past_the_end_the_rate_stays_at_its_floor():
    params = AdamW(schedule="linear", min_lr_ratio=0.1)
    assert params.build().lr_factor(4, 9) == pytest.approx(0.1)


def test_warm_up_longer_than_the_run_is_an_error():
    with pytest.raises(AlignkitError, match=r"warmup_steps is 9, but the run has only 5"):
        AdamW(warmup_steps=9).build().start([torch.nn.Parameter(torch.ones(1))], total_steps=5)


def test_warm_up_as_a_share_of_the_run():
    """3 % of 100 steps are 3: thirds, then the cosine; of 50 they are 1.5, so 2."""
    made = AdamW(schedule="cosine", warmup_ratio=0.03).build()
    assert [made.lr_factor(100, i) for i in range(4)] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert [made.warmup(n) for n in (0, 1, 50, 100, 101)] == [0, 1, 2, 3, 4]
    assert AdamW(warmup_ratio=0.1).build().warmup(30) == 3  # 0.1 * 30 is 3.0000000000000004
    assert list(AdamW(warmup_ratio=0.03).check({})) == []
    assert [key for key, _ in AdamW(warmup_ratio=0.03, warmup_steps=5).check({})] == [
        "warmup_ratio"
    ]
