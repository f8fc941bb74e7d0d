"""Losses from papers: numbers worked by hand from the equations, beside those of likely bugs."""

import math

import pytest
import torch

from alignkit.protocols import LossInputs
from alignkit_losses import CispoClip, DapoClip, DualClip, GrpoClip

ADVANTAGES = torch.tensor([[2.0], [-3.0]], dtype=torch.float64)


def inputs(old, new):
    """Return both rows with the same probabilities: one is rewarded, the other is not."""
    logprobs = torch.tensor([new] * 2, dtype=torch.float64).log().requires_grad_()
    return LossInputs(
        logprobs=logprobs,
        mask=torch.ones(2, 3).bool(),
        advantages=ADVANTAGES,
        old_logprobs=torch.full((2, 3), math.log(old), dtype=torch.float64),
    )


def close(got, want):
    torch.testing.assert_close(got, torch.tensor(want, dtype=got.dtype), rtol=0, atol=1e-12)


def test_dapo_clip_by_hand():
    x = inputs(0.4, [0.5, 0.6, 0.3])  # ratios 1.25, 1.5, 0.75
    output = DapoClip().build()(x)
    # A = 2: 1.25 * 2 = 2.5, within 1.28 (bounds both 0.2: 2.4); 1.28 * 2 = 2.56; 0.75 * 2 = 1.5.
    # A = -3: -3.75; -4.5; min(-2.25, 0.8 * -3) = -2.4 (bounds swapped: -2.25).
    close(output.per_token.detach(), [[-2.5, -2.56, -1.5], [3.75, 4.5, 2.4]])
    close(output.metrics["clip_fraction"], [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    output.per_token.sum().backward()
    # -r A where not clipped.
    close(x.logprobs.grad, [[-2.5, 0.0, -1.5], [3.75, 4.5, 0.0]])


def test_dapo_clip_with_equal_bounds_is_grpo_clip():
    x = inputs(0.4, [0.5, 0.6, 0.3])
    dapo = DapoClip(eps_low=0.2, eps_high=0.2).build()(x)
    grpo = GrpoClip(cliprange=0.2).build()(x)
    assert torch.equal(dapo.per_token, grpo.per_token)
    assert {k: v.tolist() for k, v in dapo.metrics.items()} == {
        k: v.tolist() for k, v in grpo.metrics.items()
    }


def test_dual_clip_by_hand():
    x = inputs(0.2, [0.8, 0.22, 0.1])  # ratios 4, 1.1, 0.5
    output = DualClip(cliprange=0.2, c=3.0).build()(x)
    # A = 2: min(8, 2.4) = 2.4; 2.2; min(1, 1.6) = 1. Bounded for positive advantages as well,
    # max(2.4, 3 * 2) = 6 would come first.
    # A = -3: max(min(-12, -3.6), -9) = -9 (without the second clip: -12); -3.3;
    # min(-1.5, -2.4) = -2.4.
    close(output.per_token.detach(), [[-2.4, -2.2, -1.0], [9.0, 3.3, 2.4]])
    close(output.metrics["dual_clip_fraction"], [[0.0] * 3, [1.0, 0.0, 0.0]])
    close(output.metrics["clip_fraction"], [[1.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    output.per_token.sum().backward()
    close(x.logprobs.grad, [[0.0, -2.2, -1.0], [0.0, 3.3, 0.0]])


def test_dual_clip_with_a_far_bound_is_grpo_clip():
    x = inputs(0.2, [0.8, 0.22, 0.1])
    # The largest ratio is 4.
    assert torch.equal(
        DualClip(c=4.5).build()(x).per_token, GrpoClip(cliprange=0.2).build()(x).per_token
    )


def test_a_dual_clip_that_would_cut_on_policy_is_refused():
    with pytest.raises(ValueError, match="greater than 1"):
        DualClip(c=1.0)


def test_cispo_clip_by_hand():
    x = inputs(0.2, [0.8, 0.3, 0.1])  # ratios 4, 1.5, 0.5
    output = CispoClip(eps_low=0.2, eps_high=1.0).build()(x)
    # Weights 2, 1.5, 0.8 times -A log p; the surrogate's minimum would leave 4 at A = -3.
    logs = [math.log(p) for p in (0.8, 0.3, 0.1)]
    weights = (2.0, 1.5, 0.8)
    want = [[-w * a * v for w, v in zip(weights, logs, strict=True)] for a in (2.0, -3.0)]
    close(output.per_token.detach(), want)
    close(output.metrics["clip_fraction"], [[1.0, 0.0, 1.0]] * 2)
    output.per_token.sum().backward()
    # -w A everywhere. grpo_clip: 0 where clipped; without the stop-gradient: -w A (1 + log p)
    # inside the bounds.
    close(x.logprobs.grad, [[-4.0, -3.0, -1.6], [6.0, 4.5, 2.4]])


def test_cispo_clip_has_no_lower_bound_by_default():
    x = inputs(0.2, [0.8, 0.02, 0.002])  # ratios 4, 0.1, 0.01
    output = CispoClip().build()(x)
    assert not output.metrics["clip_fraction"].any()
    output.per_token.sum().backward()
    close(x.logprobs.grad, [[-8.0, -0.2, -0.02], [12.0, 0.3, 0.03]])


@pytest.mark.parametrize("params", [CispoClip(), DapoClip(), DualClip()])
def test_old_logprobs_are_required(params):
    x = LossInputs(
        logprobs=torch.zeros(2, 3), mask=torch.ones(2, 3).bool(), advantages=torch.ones(2, 1)
    )
    with pytest.raises(ValueError, match="reads old_logprobs"):
        params.build()(x)


@pytest.mark.parametrize("params", [CispoClip(), DapoClip(), DualClip()])
def test_flat_advantages_are_refused(params):
    x = LossInputs(  # (B,) would broadcast along the tokens
        logprobs=torch.zeros(3, 3),
        mask=torch.ones(3, 3).bool(),
        advantages=torch.ones(3),
        old_logprobs=torch.zeros(3, 3),
    )
    with pytest.raises(ValueError, match=r"must be \(3, 1\)"):
        params.build()(x)
