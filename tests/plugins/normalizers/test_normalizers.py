"""Hand-worked numbers for each normalizer, and what masks and micro-batches must not change."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignkit.protocols import StepTotals
from alignkit_normalizers import MaskedMean, MaskedNormalize, TokenMean

ALL = {
    "masked_mean": MaskedMean().build(),
    "masked_normalize": MaskedNormalize(constant=7.0).build(),
    "token_mean": TokenMean().build(),
}
LENGTHS = (4, 7)
MASK = torch.arange(7) < torch.tensor(LENGTHS)[:, None]
TOTALS = StepTotals(responses=2, tokens=11)


def ratio_gradient(normalizer):
    """The assignment's example: ratio 1, advantage 2, responses of 4 and 7 tokens."""
    ratio = torch.ones(2, 7, dtype=torch.float64, requires_grad=True)
    scalar = normalizer(ratio * 2.0, MASK, totals=TOTALS)
    scalar.backward()
    assert not ratio.grad[~MASK].any()
    return scalar.item(), ratio.grad[0, 0].item(), ratio.grad[1, 0].item()


def test_masked_mean_by_hand():
    # Row means 2 and 2. Gradient 2 / 4 / 2 rows and 2 / 7 / 2 rows.
    # A mean over all tokens would give 2 / 11 = 0.1818 for both.
    scalar, short, long = ratio_gradient(ALL["masked_mean"])
    assert (scalar, short, long) == pytest.approx((2.0, 0.25, 1 / 7), abs=1e-12)


def test_masked_normalize_by_hand():
    # Row sums over 7: 8 / 7 = 1.1429 and 14 / 7 = 2.0; their mean 1.5714. Gradient 2 / 7 / 2.
    scalar, short, long = ratio_gradient(ALL["masked_normalize"])
    assert scalar == pytest.approx((8 / 7 + 2.0) / 2, abs=1e-12)
    assert (short, long) == pytest.approx((1 / 7, 1 / 7), abs=1e-12)


@pytest.mark.parametrize(("row", "value"), [(0, 1.142857142857), (1, 2.0)])
def test_masked_normalize_of_one_row(row, value):
    one = StepTotals(responses=1, tokens=LENGTHS[row])
    rows = slice(row, row + 1)
    got = ALL["masked_normalize"](torch.full((1, 7), 2.0).double(), MASK[rows], totals=one)
    assert got.item() == pytest.approx(value, abs=1e-12)


def test_token_mean_by_hand():
    # 11 tokens of loss 2. Rows averaged first would give gradients 0.25 and 0.1429.
    scalar, short, long = ratio_gradient(ALL["token_mean"])
    assert (scalar, short, long) == pytest.approx((2.0, 2 / 11, 2 / 11), abs=1e-12)


def test_they_differ_on_unequal_losses():
    losses = torch.tensor([[1.0, 3.0, 0.0], [5.0, 0.0, 0.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    totals = StepTotals(responses=2, tokens=3)
    values = {name: f(losses, mask, totals=totals).item() for name, f in ALL.items()}
    # (2 + 5) / 2; (4 + 5) / 7 / 2; 9 / 3. Over padding: 9 / 6 = 1.5 for a mean.
    assert values == pytest.approx(
        {"masked_mean": 3.5, "masked_normalize": 9 / 14, "token_mean": 3.0}, abs=1e-12
    )


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e300])
def test_blind_to_masked_values(name, garbage):
    clean = torch.full((2, 7), 2.0, dtype=torch.float64)
    dirty = clean.masked_fill(~MASK, garbage).requires_grad_()
    scalar = ALL[name](dirty, MASK, totals=TOTALS)
    assert scalar.item() == ALL[name](clean, MASK, totals=TOTALS).item()
    scalar.backward()
    assert dirty.grad.isfinite().all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("tokens", [0, 3])
def test_rows_without_tokens_give_zero(name, tokens):
    losses = torch.ones(2, tokens, dtype=torch.float64, requires_grad=True)
    mask = torch.zeros(2, tokens).bool()
    scalar = ALL[name](losses, mask, totals=StepTotals(responses=2, tokens=0))
    scalar.backward()
    assert scalar.item() == 0
    assert not losses.grad.any()


@pytest.mark.parametrize("name", ALL)
def test_rows_without_tokens_count_as_responses(name):
    losses = torch.tensor([[6.0], [0.0]], dtype=torch.float64)
    mask = torch.tensor([[True], [False]])
    got = ALL[name](losses, mask, totals=StepTotals(responses=2, tokens=1)).item()
    # masked_mean over the rows that have tokens only would be 6.
    assert got == pytest.approx({"masked_mean": 3.0, "masked_normalize": 3 / 7}.get(name, 6.0))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.data())
def test_micro_batches_add_up(lengths, data):
    values = torch.arange(len(lengths) * 5, dtype=torch.float64).view(-1, 5).sin()
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    totals = StepTotals(responses=len(lengths), tokens=sum(lengths))
    order = torch.tensor(data.draw(st.permutations(range(len(lengths)))))
    size = data.draw(st.integers(1, len(lengths)))
    for normalizer in ALL.values():
        whole = normalizer(values, mask, totals=totals)
        parts = [normalizer(values[i], mask[i], totals=totals) for i in order.split(size)]
        assert sum(parts).item() == pytest.approx(whole.item(), abs=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_masks_that_are_no_masks_are_refused(name):
    losses = torch.ones(2, 3)
    for mask in (torch.ones(2, 3), torch.ones(2, 1).bool(), torch.ones(3).bool()):
        with pytest.raises(ValueError, match="bool mask of the same shape"):
            ALL[name](losses, mask, totals=StepTotals(2, 6))
