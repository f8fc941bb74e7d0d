"""Advantages from papers: numbers worked by hand, beside those of likely bugs."""

from itertools import combinations
from math import comb, sqrt

import pytest
import torch

from alignkit import AlignkitError
from alignkit_advantages import BatchStd, PassAtK, Rloo

REWARDS = torch.tensor([1.0, 0.0, 0.0, 3.0, 2.0, 2.0, 2.0, 6.0], dtype=torch.float64)


def close(got, want):
    torch.testing.assert_close(got, torch.tensor(want, dtype=got.dtype), rtol=0, atol=1e-12)


def test_rloo_by_hand():
    got = Rloo().build()(REWARDS, group_size=4)
    # 1 - (0 + 0 + 3) / 3 = 0; 0 - 4/3; 3 - 1/3 = 8/3. 2 - 10/3 = -4/3; 6 - 6/3 = 4.
    # The mean of all four as baseline: 0 -1 -1 2 -1 -1 -1 3.
    close(got, [0, -4 / 3, -4 / 3, 8 / 3, -4 / 3, -4 / 3, -4 / 3, 4])


def test_batch_std_by_hand():
    got = BatchStd(eps=0.0).build()(REWARDS, group_size=4)
    # Less the means 1 and 3: 0 -1 -1 2 -1 -1 -1 3. Squares add up to 18, over 8 - 1.
    # Over 8: a deviation of 1.5, not 1.604. Per group: sqrt(2) and 2.
    std = sqrt(18 / 7)
    close(got, [a / std for a in (0, -1, -1, 2, -1, -1, -1, 3)])


def test_batch_std_without_group_baseline_by_hand():
    advantage = BatchStd(eps=0.5, baseline="none").build()
    # Less the mean 2 of the batch: -1 -2 -2 1 0 0 0 4. Squares add up to 26, over 7.
    std = sqrt(26 / 7) + 0.5
    want = [a / std for a in (-1, -2, -2, 1, 0, 0, 0, 4)]
    close(advantage(REWARDS, group_size=4), want)
    close(advantage(REWARDS, group_size=1), want)


def test_batch_std_gives_a_group_without_signal_exact_zeros():
    rewards = torch.tensor([0.1, 0.1, 0.1, 0.0, 1.0, 1.0], dtype=torch.float64)
    assert BatchStd().build()(rewards, group_size=3)[:3].tolist() == [0.0] * 3


def test_pass_at_k_by_hand():
    rewards = torch.tensor([0, 1, 0, 0, 1, 0, 1, 0, 1, 0, 1, 1]).double()
    got = PassAtK(k=2).build()(rewards, group_size=4)
    # One right of four: E[R] = 1 - C(3,2)/C(4,2) = 1/2, deviation 1/2. Right: (1/2) / (1/2) = 1.
    # Wrong: E[R | i] = 1 - C(2,1)/C(3,1) = 1/3, so (1/3 - 1/2) / (1/2) = -1/3.
    # Two: E[R] = 1 - 1/6, deviation sqrt(5)/6. Right (1/6) / (sqrt(5)/6) = 1/sqrt(5); wrong
    # E[R | i] = 1 - 1/3, so -1/sqrt(5). Three: every pair holds a right one, nothing to learn.
    # group_std would give 1.5 and -0.5, 0.866 and -0.866, 0.5 and -1.5.
    root = 1 / sqrt(5)
    third = -1 / 3
    close(got, [third, 1, third, third, root, -root, root, -root, 0, 0, 0, 0])


@pytest.mark.parametrize(("n", "k"), [(3, 2), (6, 2), (6, 4), (6, 5)])
def test_pass_at_k_is_the_mean_over_all_subsets(n, k):
    rewards = torch.rand(n, generator=torch.Generator().manual_seed(n + k)).double()
    rewards[1] = rewards[0]  # a tie
    best = {chosen: max(rewards[list(chosen)].tolist()) for chosen in combinations(range(n), k)}
    of_all = torch.tensor(list(best.values())).double()
    want = [
        (torch.tensor([v for s, v in best.items() if i in s]).double().mean() - of_all.mean())
        / of_all.std(correction=0)
        for i in range(n)
    ]
    got = PassAtK(k=k).build()(rewards, group_size=n)
    torch.testing.assert_close(got, torch.stack(want), rtol=0, atol=1e-9)


@pytest.mark.parametrize("wrong", range(17))
def test_pass_at_k_is_the_closed_form_of_the_paper(wrong):
    n, k = 16, 4
    rewards = torch.tensor([0.0] * wrong + [1.0] * (n - wrong), dtype=torch.float64)
    mean = 1 - comb(wrong, k) / comb(n, k)
    std = sqrt(mean * (1 - mean))
    bad = 1 - mean - (comb(wrong - 1, k - 1) / comb(n - 1, k - 1) if wrong else 0)
    want = [bad / std] * wrong + [(1 - mean) / std] * (n - wrong) if std else [0.0] * n
    close(PassAtK(k=k).build()(rewards, group_size=n), want)


def test_groups_too_small_are_errors_with_a_remedy():
    with pytest.raises(AlignkitError, match=r"'rloo'.*at least 2, got 1; raise group_size"):
        Rloo().build()(REWARDS, group_size=1)
    with pytest.raises(AlignkitError, match=r"'batch_std'.*raise group_size.*baseline = \"none\""):
        BatchStd().build()(REWARDS, group_size=1)
    with pytest.raises(AlignkitError, match=r"got k = 4 and group_size = 4; lower k"):
        PassAtK(k=4).build()(REWARDS, group_size=4)
    with pytest.raises(AlignkitError, match=r"'batch_std'"):
        BatchStd(baseline="none").build()(REWARDS[:1], group_size=1)


@pytest.mark.parametrize("params", [Rloo(), BatchStd(), PassAtK()])
def test_a_cut_group_is_refused(params):
    with pytest.raises(ValueError, match="8 rewards do not divide into groups of 3"):
        params.build()(REWARDS, group_size=3)
