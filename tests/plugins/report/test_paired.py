"""Comparisons seed by seed: numbers worked by hand, and published quantiles of Student's t."""

import csv
import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignkit.run_data import paired, student
from alignkit.testing import run_cli
from alignkit_report import png

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


# ---------------------------------------------------------------- pairs


@pytest.fixture
def settings(make_run, load, tmp_path):
    """Write settings: a value at the end of each seed's run, after a start at 0.1."""

    def make(**values):
        for name, ends in values.items():
            for seed, end in enumerate(ends):
                if end is not None:
                    rows = [{ACC: 0.1}, {ACC: end}]
                    make_run(f"s/{name}/seed_{seed}", rows, seed=seed, lr=len(name) * 1e-4)
        found = {g.name: g for g in load(tmp_path / "s")}
        return [found[name] for name in values]

    return make


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
    """Seeds differ by 0.3, settings by 0.01 at each."""
    a, b = settings(mine=[0.31, 0.61, 0.91], base=[0.3, 0.6, 0.9])
    got = paired.compare(a, b, ACC)
    assert got.p < 1e-6
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


# ---------------------------------------------------------------- collapsed seeds


def test_a_seed_that_fell_from_its_own_best_is_named(make_run, load):
    for seed, ends in enumerate([(0.5, 0.8), (0.8, 0.3), (0.8, 0.41)]):
        run = make_run(f"v/seed_{seed}", [{ACC: x} for x in ends], seed=seed)
    (g,) = load(run.parent)
    assert paired.collapsed(g, ACC) == {1: f"{ACC} fell from 0.8 at step 0 to 0.3"}


def test_a_seed_far_below_the_others_is_named(settings):
    (g,) = settings(v=[0.9, 0.2, 0.8, 0.85])
    assert paired.collapsed(g, ACC) == {1: f"{ACC} ended at 0.2, the other seeds at 0.85 (median)"}


def test_two_seeds_cannot_say_which_of_them_is_odd(settings):
    (g,) = settings(v=[0.9, 0.2])
    assert paired.collapsed(g, ACC) == {}


def test_a_run_stopped_as_diverged_is_named_with_the_reason(make_run, load):
    for seed in (0, 1):
        run = make_run(f"v/seed_{seed}", [{ACC: 0.5}], seed=seed)
    (run / "stopped.json").write_text('{"status": "diverged", "reason": "loss not finite"}')
    (g,) = load(run.parent)
    assert paired.collapsed(g, ACC) == {1: "loss not finite"}


def test_comparisons_come_with_and_without_the_seeds_that_collapsed(settings):
    """One collapsed seed in four makes the better setting look worse."""
    groups = settings(base=[0.5, 0.52, 0.5, 0.51], mine=[0.6, 0.6, 0.6, 0.1], other=[0.6] * 4)
    (whole, without), (plain, nothing) = paired.all_pairs(groups, ACC, groups[0])
    assert (whole.name, plain.name) == ("mine", "other")
    assert whole.difference < 0
    assert without.seeds == (0, 1, 2)
    assert without.difference == pytest.approx(0.28 / 3)
    assert without.p < 0.05 < whole.p
    assert nothing is None


# ---------------------------------------------------------------- in a report


@pytest.fixture
def swept(settings, tmp_path):
    """A sweep of three settings and four seeds, one of them collapsed."""
    ends = {"base": [0.5, 0.52, 0.5, 0.51], "mine": [0.6, 0.61, 0.6, 0.1], "other": [0.55] * 4}
    settings(**ends)
    return tmp_path / "s"


def reported(swept, *options):
    done = run_cli("report", swept, *options)
    assert done.status == 0, done.stderr
    return done.stdout


def test_the_table_compares_seed_by_seed_and_names_the_seed_that_collapsed(swept):
    text = reported(swept, "--table")
    assert f"mine, seed 3: collapsed: {ACC} ended at 0.1, the other seeds at 0.6 (median)" in text
    assert f"seed by seed: {ACC} less that of base" in text
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "mine" in lines
    assert "+0.097" in lines["mine without seed 3"]  # 0.1, 0.09 and 0.1
    assert "< 0.001" not in lines["mine without seed 3"]
    assert "base" in text.split("seed by seed")[0]
    assert not [line for line in text.split("seed by seed")[1].splitlines() if "base  " in line]


def test_another_setting_may_be_the_one_to_compare_with(swept):
    text = reported(swept, "--table", "--compare", "other").split("seed by seed")[1]
    assert "less that of other" in text
    assert "-0.043" in text  # base: -0.05 -0.03 -0.05 -0.04
    done = run_cli("report", swept, "--compare", "othr")
    assert done.status == 2
    assert "there is no setting 'othr' to compare with" in done.stderr
    assert "base, mine, other" in done.stderr


def test_page_and_spreadsheet_hold_the_comparisons(swept):
    reported(swept, "--csv")
    text = (swept / "report.html").read_text()
    section = text.split("id='pairs'")[1].split("</section>")[0]
    assert "mine without seed 3" in section
    assert f"<code>{ACC}</code> less that of base" in section
    with (swept / "report.pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["setting"], r["seeds"]) for r in rows] == [
        ("mine", "0 1 2 3"), ("mine", "0 1 2"), ("other", "0 1 2 3"),
    ]  # fmt: skip
    assert float(rows[1]["difference"]) == pytest.approx(0.29 / 3)
    assert int(rows[1]["seeds needed"]) >= 2


def test_settings_without_shared_seeds_have_no_comparison(settings, tmp_path):
    settings(base=[0.5, None, 0.5], mine=[None, 0.6, 0.7])
    assert "seed by seed" not in reported(tmp_path / "s", "--table", "--csv")
    assert "id='pairs'" not in (tmp_path / "s" / "report.html").read_text()
    assert not (tmp_path / "s" / "report.pairs.csv").exists()


def test_settings_of_another_order_are_said_not_to_be_compared(settings, make_run, tmp_path):
    settings(base=[0.5, 0.6])
    for seed in (0, 1):
        run = make_run(f"s/small/seed_{seed}", [{ACC: 0.5}], seed=seed, lr=0.5)
        plan = (run / "recipe.toml").read_text()
        (run / "recipe.toml").write_text(f"rollout_batch_size = 8\n{plan}")
    text = reported(tmp_path / "s", "--table")
    assert "small is not compared with base seed by seed" in text


@pytest.mark.parametrize("band", ["error", "range"])
def test_a_png_has_a_thin_line_for_each_seed_and_the_band_that_is_asked_for(
    swept, load, tmp_path, drawn, band
):
    png.write(load(swept), tmp_path / "out", band=band)
    (axes,) = drawn["eval_answer_reward-by-step.png"].axes
    thin = [line for line in axes.lines if line.get_linewidth() < 1 and len(line.get_xdata())]
    assert len(thin) == 12
    ends = sorted(float(line.get_ydata()[-1]) for line in thin)
    assert (ends[0], ends[-1]) == (0.1, 0.61)
    tops = [path.get_extents().y1 for poly in axes.collections for path in poly.get_paths()]
    # mine: mean 0.4775, deviation 0.2517 over √4
    assert max(tops) == pytest.approx(0.61 if band == "range" else 0.4775 + 1.96 * 0.1258, abs=1e-3)


@pytest.mark.parametrize("settings", [8, 9])
def test_bands_of_many_settings_do_not_hide_their_lines(make_run, load, tmp_path, drawn, settings):
    for i in range(settings):
        for seed in (0, 1):
            make_run(f"s/n{i}/seed_{seed}", [{ACC: 0.1 * seed}, {ACC: 0.5}], seed=seed)
    png.write(load(tmp_path / "s"), tmp_path / "out")
    (axes,) = drawn["eval_answer_reward-by-step.png"].axes
    assert len(axes.collections) == (8 if settings == 8 else 0)
    lines = [line for line in axes.lines if len(line.get_xdata())]
    assert len(lines) == (24 if settings == 8 else 9)
