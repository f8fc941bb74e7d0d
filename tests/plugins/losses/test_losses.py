"""Hand-worked numbers for each loss, with the numbers the likely bugs would give."""

import math

import pytest
import torch

from alignkit.protocols import LossInputs
from alignkit_losses import GrpoClip, Gspo, NoClip, Reinforce
from alignkit_losses.ops import grpo_clip, no_clip, reinforce

# Ratios 1.5, 1.0, 0.5 against an old probability of 0.4 each.
OLD = torch.full((2, 3), math.log(0.4), dtype=torch.float64)
NEW = torch.tensor([[0.6, 0.4, 0.2]] * 2, dtype=torch.float64).log()
ADVANTAGES = torch.tensor([[2.0], [-3.0]], dtype=torch.float64)


def close(got, want):
    torch.testing.assert_close(got, torch.tensor(want, dtype=got.dtype), rtol=0, atol=1e-12)


def inputs(**changes):
    given = {"logprobs": NEW, "mask": torch.ones(2, 3).bool(), "advantages": ADVANTAGES}
    return LossInputs(**{**given, "old_logprobs": OLD, **changes})


def test_grpo_clip_by_hand():
    output = GrpoClip(cliprange=0.2).build()(inputs())
    # A = 2: min(1.5, 1.2) * 2 = 2.4; 1 * 2 = 2; min(0.5, 0.8) * 2 = 1.
    # A = -3: min(-4.5, -3.6) = -4.5; -3; min(-1.5, -2.4) = -2.4.
    # clamp without the minimum: [-2.4, -2, -1.6], [3.6, 3, 2.4]; maximum: [-3, -2, -1.6], ...
    close(output.per_token, [[-2.4, -2.0, -1.0], [4.5, 3.0, 2.4]])
    # The clipped branch is the smaller one twice. |r - 1| > 0.2 would count four.
    close(output.metrics["clip_fraction"], [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def test_grpo_clip_gradient_is_zero_where_clipped():
    logprobs = NEW.clone().requires_grad_()
    grpo_clip(logprobs, OLD, ADVANTAGES, 0.2).per_token.sum().backward()
    # -r A elsewhere: -1 * 2, -0.5 * 2; 1.5 * 3, 1 * 3.
    close(logprobs.grad, [[0.0, -2.0, -1.0], [4.5, 3.0, 0.0]])


def test_cliprange_is_used():
    output = GrpoClip(cliprange=0.6).build()(inputs())
    assert not output.metrics["clip_fraction"].any()
    close(output.per_token, [[-3.0, -2.0, -1.0], [4.5, 3.0, 1.5]])


def test_zero_advantage_is_never_clipped():
    output = grpo_clip(NEW, OLD, torch.zeros(2, 1, dtype=torch.float64), 0.2)
    assert not output.metrics["clip_fraction"].any()
    assert not output.per_token.any()


def test_approx_kl_by_hand():
    # r - 1 - log r at 1.5, 1, 0.5: 0.5 - 0.405465 = 0.094535; 0; -0.5 + 0.693147 = 0.193147.
    # -log r (the estimator that can be negative) would be -0.405465, 0, 0.693147.
    for output in (grpo_clip(NEW, OLD, ADVANTAGES, 0.2), no_clip(NEW, OLD, ADVANTAGES)):
        want = torch.tensor([[0.094534891892, 0.0, 0.193147180560]] * 2, dtype=torch.float64)
        torch.testing.assert_close(output.metrics["approx_kl"], want, rtol=0, atol=1e-9)


def test_no_clip_by_hand():
    output = NoClip().build()(inputs())
    close(output.per_token, [[-3.0, -2.0, -1.0], [4.5, 3.0, 1.5]])


def test_no_clip_gradient_on_policy_is_minus_the_advantage():
    logprobs = OLD.clone().requires_grad_()
    no_clip(logprobs, OLD, ADVANTAGES).per_token.sum().backward()
    close(logprobs.grad, [[-2.0] * 3, [3.0] * 3])


def test_gspo_by_hand():
    logprobs = OLD + torch.tensor([[0.3, 0.1, 9.0], [0.3, 0.1, 0.2]], dtype=torch.float64)
    logprobs.requires_grad_()
    mask = torch.tensor([[True, True, False], [True, True, True]])
    output = Gspo(cliprange=0.15).build()(inputs(logprobs=logprobs, mask=mask))
    # Both responses: mean log ratio 0.2, s = e^0.2 = 1.221403 (padding counted: e^3.13, a sum:
    # e^0.4 and e^0.6). A = 2: min(s, 1.15) * 2 = 2.3; A = -3: min(-3 s, -3.45) = -3.664208.
    close(output.per_token.detach(), [[-2.3] * 3, [3 * math.exp(0.2)] * 3])
    assert output.metrics["clip_fraction"].tolist() == [[1.0], [0.0]]
    output.per_token.mean(1).sum().backward()
    # d(3 s)/d log p_t = 3 s / 3 tokens; none where clipped, none at padding.
    close(logprobs.grad, [[0.0] * 3, [math.exp(0.2)] * 3])


def test_gspo_on_policy_is_no_clip():
    mask = torch.tensor([[True, True, False], [False, False, False]])
    x = inputs(logprobs=OLD, mask=mask)
    assert torch.equal(Gspo().build()(x).per_token, NoClip().build()(x).per_token)


def test_reinforce_by_hand():
    logprobs = torch.tensor([[-1.0, -0.5], [-2.0, -0.25]], dtype=torch.float64, requires_grad=True)
    output = Reinforce().build()(
        LossInputs(logprobs=logprobs, mask=torch.ones(2, 2).bool(), advantages=ADVANTAGES)
    )
    # -A log p; the sign of an objective to maximise would give [[-2, -1], [6, 0.75]].
    close(output.per_token, [[2.0, 1.0], [-6.0, -0.75]])
    output.per_token.sum().backward()
    close(logprobs.grad, [[-2.0, -2.0], [3.0, 3.0]])


def test_metrics_carry_no_gradient():
    logprobs = NEW.clone().requires_grad_()
    for output in (grpo_clip(logprobs, OLD, ADVANTAGES, 0.2), no_clip(logprobs, OLD, ADVANTAGES)):
        assert not any(values.requires_grad for values in output.metrics.values())


@pytest.mark.parametrize("params", [GrpoClip(), Gspo(), NoClip()])
def test_old_logprobs_are_declared_and_required(params):
    assert params.needs == {"old_logprobs"}
    with pytest.raises(ValueError, match="reads old_logprobs"):
        params.build()(inputs(old_logprobs=None))


def test_reinforce_needs_nothing_more():
    assert Reinforce().needs == frozenset()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logprobs": NEW[0]}, r"must be \(B, T\)"),
        ({"advantages": ADVANTAGES[:, 0]}, r"must be \(2, 1\)"),  # would broadcast along T
        ({"advantages": ADVANTAGES.T}, r"must be \(2, 1\)"),
        ({"old_logprobs": OLD[:, :1]}, r"must both be \(2, 3\)"),
    ],
)
def test_shapes_that_would_broadcast_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        GrpoClip().build()(inputs(**change))


def test_integers_are_refused():
    with pytest.raises(TypeError, match="floating-point"):
        reinforce(NEW, torch.ones(2, 1, dtype=torch.int64))
