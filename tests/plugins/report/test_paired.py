"""Comparisons seed by seed: numbers worked by hand, and published quantiles of Student's t."""

import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignkit.run_data import paired, student
from alignkit.testing import run_cli
from alignkit_report import pairs

ACC = "eval/answer_reward"


QUANTILES = {  # Fisher & Yates, table III, and its usual continuation
    (0.975, 1): 12.706205, (0.975, 2): 4.302653, (0.975, 3): 3.182446, (0.975, 4): 2.776445,
    (0.975, 7): 2.364624, (0.975, 10): 2.228139, (0.975, 30): 2.042272, (0.975, 120): 1.979930,
    (0.8, 1): 1.376382, (0.8, 2): 1.060660, (0.8, 3): 0.978472, (0.8, 10): 0.879058,
    (0.995, 5): 4.032143, (0.95, 6): 1.943180,
}  # fmt: skip


@pytest.mark.parametrize("at", QUANTILES, ids=str)
def test_quantiles_are_the_published_ones(at):
    p, df = at
    assert student.quantile(p, df) == pytest.approx(QUANTILES[at], abs=1e-6)
    assert student.two_sided(QUANTILES[at], df) == pytest.approx(2 * (1 - p), abs=1e-6)


def test_small_distributions_are_those_of_their_formulas():
    for t in (0.0, 0.5, -2.0, 7.0):
        assert student.two_sided(t, 1) == pytest.approx(1 - 2 * math.atan(abs(t)) / math.pi)
        assert student.two_sided(t, 2) == pytest.approx(1 - abs(t) / math.sqrt(2 + t * t))
    assert student.two_sided(math.inf, 3) == 0
    with pytest.raises(ValueError, match="at least 1 degree"):
        student.two_sided(1.0, 0)
    with pytest.raises(ValueError, match="shares from"):
        student.quantile(0.2, 3)


@given(st.integers(1, 400), st.floats(0, 8))
def test_tails_get_thinner_with_df_and_never_thinner_than_the_normal_ones(df, t):
    here, next_one = student.two_sided(t, df), student.two_sided(t, df + 1)
    normal = 2 * (1 - NormalDist().cdf(t))
    assert here >= next_one - 1e-9
    assert next_one >= normal - 1e-9


@pytest.mark.parametrize("df", [student.LARGE - 1, student.LARGE, student.LARGE + 1, 5000])
@pytest.mark.parametrize("p", [0.8, 0.975])
def test_quantiles_have_no_step_where_the_method_changes(df, p):
    assert student.two_sided(student.quantile(p, df), df) == pytest.approx(2 * (1 - p), abs=1e-5)


def test_a_difference_is_taken_seed_by_seed(settings):
    """Differences 0.1 0.2 0.3: mean 0.2, deviation 0.1, error 0.1 / √3, t = 2√3 with 2 degrees."""
    a, b = settings(mine=[0.6, 0.8, 0.7], base=[0.5, 0.6, 0.4])
    got = paired.compare(a, b, ACC)
    assert (got.name, got.reference, got.seeds) == ("mine", "base", (0, 1, 2))
    assert got.difference == pytest.approx(0.2)
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert (got.low, got.high) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-6)
    # P(|T| > t) = 1 - t / √(2 + t²) for 2 degrees
    assert got.p == pytest.approx(1 - math.sqrt(12 / 14), abs=1e-9)
    # n = 4: (3.182 + 0.978)² / 4 = 4.33 > 4; n = 5: (2.776 + 0.941)² / 4 = 3.45 <= 5
    assert got.needed == 5
    back = paired.compare(b, a, ACC)
    assert (back.difference, back.p, back.needed) == pytest.approx((-0.2, got.p, 5))


def test_pairing_finds_what_two_spreads_would_hide(settings):
    """Seeds differ by 0.3, settings by 0.009, 0.010 and 0.011: t = 10 √3 with 2 degrees."""
    a, b = settings(mine=[0.309, 0.61, 0.911], base=[0.3, 0.6, 0.9])
    got = paired.compare(a, b, ACC)
    assert got.p == pytest.approx(1 - 10 * math.sqrt(3) / math.sqrt(2 + 300))
    assert got.needed == 2


def test_only_shared_seeds_count_and_one_tells_no_spread(settings):
    a, b = settings(mine=[0.6, None, 0.9], base=[0.5, 0.7])
    got = paired.compare(a, b, ACC)
    assert (got.seeds, got.p, got.needed) == ((0,), None, None)
    assert got.difference == pytest.approx(0.1)
    assert (got.low, got.high) == (-math.inf, math.inf)
    assert paired.compare(a, b, ACC, without=frozenset({0})) is None


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_a_run_that_did_not_end_is_neither_compared_nor_called_collapsed(
    settings, make_run, load, tmp_path, status
):
    settings(mine=[0.6, 0.8], base=[0.5, 0.6, 0.4])
    make_run("s/mine/seed_2", [{ACC: 0.1}], seed=2, status=status, lr=4e-4)
    a, b = sorted(load(tmp_path / "s"), key=lambda g: g.name != "mine")
    assert len(a.runs) == 3
    got = paired.compare(a, b, ACC)
    assert got.seeds == (0, 1)
    assert got.difference == pytest.approx(0.15)
    assert paired.collapsed(a, ACC) == {}
    done = run_cli("report", tmp_path / "s", "--table", "--compare", "base")
    assert "not compared" not in done.stdout
    assert "Runs that did not end are left out." in done.stdout


def test_no_difference_needs_no_number_of_seeds(settings):
    a, b = settings(mine=[0.5, 0.5], base=[0.5, 0.5])
    got = paired.compare(a, b, ACC)
    assert (got.difference, got.p, got.needed) == (0, 1, None)


@pytest.mark.parametrize("seeds", [2, 3])
def test_equal_differences_prove_nothing(settings, seeds):
    """Accuracies on 256 questions have steps of 1 / 256, so that two seeds often differ alike."""
    mine = [0.9, 0.5, 0.7][:seeds]  # 0.9 - 0.8 and 0.5 - 0.4 differ in their last bits
    a, b = settings(mine=mine, base=[0.8, 0.4, 0.6][:seeds])
    got = paired.compare(a, b, ACC)
    assert got.difference == pytest.approx(0.1)
    assert (got.low, got.high, got.p, got.needed) == (-math.inf, math.inf, None, None)
    assert pairs.cells(got, got.seeds) == ("mine", str(seeds), "+0.100", "–", "–", "–")


def test_a_run_that_ended_without_a_finite_value_is_left_out(make_run, load):
    """Its last finite value is that of a step on the way."""
    for seed in range(3):
        make_run(f"s/base/seed_{seed}", [{ACC: 0.2}, {ACC: 0.4}], seed=seed)
        end = None if seed == 1 else 0.5 + 0.1 * seed
        run = make_run(f"s/mine/seed_{seed}", [{ACC: 0.9}, {ACC: end}], seed=seed)
    base, mine = load(run.parents[1])
    assert paired.compare(mine, base, ACC).seeds == (0, 2)
    assert paired.collapsed(mine, ACC) == {1: f"{ACC} was no finite number at step 1"}


@given(st.floats(0.001, 1), st.floats(0.001, 1))
def test_the_seeds_needed_are_the_fewest_that_do(difference, spread):
    n = paired.seeds_needed(difference, spread)

    def wanted(m):
        t = student.quantile(0.975, m - 1) + student.quantile(0.8, m - 1)
        return (t * spread / difference) ** 2

    if n is None:
        assert wanted(paired.MOST) > paired.MOST
        return
    assert n >= wanted(n)
    assert n == 2 or n - 1 < wanted(n - 1)


@pytest.mark.parametrize("seeds", [6, 15])
def test_the_seeds_needed_find_the_difference_four_times_in_five(seeds):
    """Many made-up experiments with a true difference that asks for that many seeds."""
    import random

    draw = random.Random(seeds)
    spread = 1.0
    t = student.quantile(0.975, seeds - 1) + student.quantile(0.8, seeds - 1)
    difference = t * spread / math.sqrt(seeds) * (1 + 1e-9)
    assert paired.seeds_needed(difference, spread) == seeds
    bound, found, tries = student.quantile(0.975, seeds - 1), 0, 4000
    for _ in range(tries):
        values = [draw.gauss(difference, spread) for _ in range(seeds)]
        mean = sum(values) / seeds
        error = math.sqrt(sum((v - mean) ** 2 for v in values) / (seeds - 1) / seeds)
        found += abs(mean / error) > bound
    assert 0.77 < found / tries < 0.85


@pytest.mark.parametrize(
    "change",
    [{"data": {"path": "other"}}, {"rollout_batch_size": 64}, {"group_size": 2}, {"use": "sft"}],
    ids=["data", "batch", "groups", "algorithm"],
)
def test_seeds_of_another_order_of_questions_do_not_go_together(settings, change):
    a, b = settings(mine=[0.6, 0.7], base=[0.5, 0.5])
    for g in (a, b):
        for run in g.runs:
            run.plan.update(rollout_batch_size=32, group_size=4, data={"path": "one"})
    assert paired.compare(a, b, ACC) is not None
    for run in a.runs:
        run.plan.update(change)
    assert paired.compare(a, b, ACC) is None
