"""Which losses are told to need an advantage, so that rows without one can be left out."""

import pytest
import torch

from alignkit.engine.learning.reference import penalised
from alignkit.engine.learning.signal import needs_advantage
from alignkit.protocols import LossOutput
from alignkit_losses import GrpoClip, Gspo, NoClip, Reinforce


@pytest.mark.parametrize("params", [GrpoClip(), NoClip(), Gspo(), Reinforce()])
def test_built_in_losses_need_an_advantage(params):
    assert needs_advantage(params.build(), {"rollout_logprobs"})


def test_a_penalty_in_the_loss_works_without_one():
    loss = Reinforce().build()
    assert not needs_advantage(penalised(loss, 0.1, "k3"), {"ref_logprobs"})
    assert not needs_advantage(penalised(loss, 0.1, "k2"), {"ref_logprobs"})
    # The k1 penalty is in the reward; the loss only logs it.
    assert needs_advantage(penalised(loss, 0.1, "k1"), {"ref_logprobs"})


def test_zero_with_a_slope_is_not_nothing():
    """The value alone does not tell: this one is 0 at every log-prob, and pushes all the same."""

    def loss(x):
        return LossOutput(per_token=x.logprobs - x.logprobs.detach())

    assert not needs_advantage(loss, ())


def test_a_term_that_shows_far_from_the_old_policy_only_is_found():
    def loss(x):
        far = ((x.logprobs - x.old_logprobs).abs() > 1).to(x.logprobs.dtype)
        return LossOutput(per_token=-x.advantages * x.logprobs + far)

    assert not needs_advantage(loss, ())


def test_nan_is_not_zero():
    assert not needs_advantage(lambda x: LossOutput(per_token=x.logprobs * torch.nan), ())


def test_a_loss_without_gradient_needs_no_row():
    assert needs_advantage(lambda x: LossOutput(per_token=x.advantages * x.logprobs.detach()), ())
