"""Hand-worked numbers for each advantage, and the mutants they catch."""

import pytest
import torch

from alignkit import AlignkitError
from alignkit_advantages import (
    BatchStd,
    GroupMean,
    GroupStd,
    MaxRl,
    NoBaseline,
    PassAtK,
    Rloo,
)

REWARDS = torch.tensor([1.0, 0.0, 0.0, 3.0, 2.0, 2.0, 2.0, 6.0], dtype=torch.float64)


def check_group_std(advantage):
    """Compare with two groups of four worked by hand."""
    got = advantage(REWARDS, group_size=4)
    # Group 1: mean 1, deviations 0 -1 -1 2, sum of squares 6, std (ddof 1) sqrt(2).
    # Group 2: mean 3, deviations -1 -1 -1 3, sum of squares 12, std (ddof 1) 2.
    # Divided by std + 1e-6. With ddof 0: std sqrt(1.5), sqrt(3): 1.633 instead of 1.414.
    root, two = 2**0.5 + 1e-6, 2 + 1e-6
    want = [0, -1 / root, -1 / root, 2 / root, -1 / two, -1 / two, -1 / two, 3 / two]
    torch.testing.assert_close(got, torch.tensor(want).double(), rtol=0, atol=1e-7)


def test_group_std_by_hand():
    check_group_std(GroupStd().build())


def _ddof_0(rewards, *, group_size):
    g = rewards.view(-1, group_size)
    return ((g - g.mean(1, keepdim=True)) / (g.std(1, correction=0, keepdim=True) + 1e-6)).flatten()


def _tiled(rewards, *, group_size):
    g = rewards.view(group_size, -1).T
    return ((g - g.mean(1, keepdim=True)) / (g.std(1, keepdim=True) + 1e-6)).T.flatten()


def _whole_batch(rewards, *, group_size):
    return (rewards - rewards.mean()) / (rewards.std() + 1e-6)


def _no_std(rewards, *, group_size):
    g = rewards.view(-1, group_size)
    return (g - g.mean(1, keepdim=True)).flatten()


@pytest.mark.parametrize(
    "mutant",
    [_ddof_0, _tiled, _whole_batch, _no_std, GroupStd(eps=1e-4).build(), GroupMean().build()],
)
def test_the_check_catches_mutants(mutant):
    with pytest.raises(AssertionError):
        check_group_std(mutant)


def test_group_mean_by_hand():
    got = GroupMean().build()(REWARDS, group_size=4)
    # The mean of the batch, 2, would give -1 -2 -2 1 0 0 0 4.
    assert got.tolist() == [0, -1, -1, 2, -1, -1, -1, 3]


def test_none_is_a_copy():
    got = NoBaseline().build()(REWARDS, group_size=1)
    assert torch.equal(got, REWARDS)
    assert got.data_ptr() != REWARDS.data_ptr()


@pytest.mark.parametrize(
    "params",
    [GroupStd(), GroupMean(), MaxRl(), Rloo(), BatchStd(), BatchStd(baseline="none"), PassAtK()],
)
@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_groups_of_equal_rewards_give_exact_zeros(params, value, dtype):
    """Three times 0.1 has a float32 mean that is not 0.1; 1 / eps would make it 0.0073."""
    got = params.build()(torch.full((6,), value, dtype=dtype), group_size=3)
    assert got.tolist() == [0.0] * 6
    assert got.dtype == dtype


def test_group_std_of_one_response_is_an_error_with_a_remedy():
    with pytest.raises(AlignkitError, match=r"at least 2.*raise group_size or use advantage 'no"):
        GroupStd().build()(REWARDS, group_size=1)


@pytest.mark.parametrize("params", [GroupStd(), GroupMean(), MaxRl(), NoBaseline()])
def test_bad_rewards_are_refused(params):
    advantage = params.build()
    with pytest.raises(ValueError, match="8 rewards do not divide into groups of 3"):
        advantage(REWARDS, group_size=3)
    with pytest.raises(ValueError, match=r"\(B,\) floating-point"):
        advantage(REWARDS.view(2, 4), group_size=4)
    with pytest.raises(ValueError, match=r"\(B,\) floating-point"):
        advantage(REWARDS.long(), group_size=4)


def test_eps_may_be_zero_but_not_negative():
    assert GroupStd(eps=0.0).build()(torch.ones(4), group_size=2).tolist() == [0.0] * 4
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        GroupStd(eps=-1e-6)


def test_maxrl_by_hand():
    rewards = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]).double()
    got = MaxRl(eps=0.0).build()(rewards, group_size=4)
    # Means 1/4 and 1/2: the rare success weighs 0.75 / 0.25 = 3, the common one 0.5 / 0.5 = 1.
    # Over the standard deviation instead: 1.5 and 0.866.
    assert got.tolist() == [3, -1, -1, -1, 1, 1, -1, -1]
    # The mean of a group is the 1 / (number of right ones) of a maximum-likelihood gradient.
    none = MaxRl(eps=0.0, baseline="none").build()(rewards, group_size=4)
    assert none.tolist() == [4, 0, 0, 0, 2, 2, 0, 0]


def test_maxrl_of_a_group_without_success_is_zero():
    assert MaxRl(eps=0.0).build()(torch.zeros(4), group_size=4).tolist() == [0.0] * 4


def test_maxrl_refuses_negative_rewards():
    with pytest.raises(AlignkitError, match="at least 0"):
        MaxRl().build()(torch.tensor([1.0, -1.0]), group_size=2)


def test_group_std_without_baseline_by_hand():
    rewards = torch.tensor([1.0, 0.0, 0.0, 3.0]).double()
    got = GroupStd(eps=0.0, baseline="none").build()(rewards, group_size=4)
    torch.testing.assert_close(got, rewards / 2**0.5, rtol=0, atol=1e-12)
