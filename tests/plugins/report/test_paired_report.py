"""Paired comparisons in tables, pages and images."""

import csv

import pytest

from alignkit.testing import run_cli
from alignkit_report import png

ACC = "eval/answer_reward"


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
