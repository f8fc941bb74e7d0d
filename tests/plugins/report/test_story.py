"""`alignkit show` and `alignkit report`: what they print, write, and refuse."""

import csv
import json
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from alignkit.cli import main
from alignkit.shipped import shipped
from alignkit_report import png, story, tables

ACC = "eval/answer_reward"


def call(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


@pytest.fixture
def run(make_run, sample, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [sample(i < 4, f"said {i}") for i in range(9)]
    return make_run(
        "a",
        [{ACC: 0.25, "train/loss": 1.0}, {ACC: 0.75}, {ACC: 0.5, "train/loss": None}],
        samples={"eval/step_000002.jsonl": rows, "rollouts/step_000001.jsonl": []},
    )


def test_the_story_has_plan_curves_best_step_and_three_right_and_wrong_answers(run):
    done = call("show", run)
    assert done.exit_code == 0, done.output
    lines = [line.strip() for line in done.output.splitlines()]
    assert lines[0] == "a: done"
    assert "algorithm    grpo  seed=0 n_steps=2" in lines
    assert "optimizer    adamw  lr=0.0001" in lines
    assert "trackers.0   console" in lines
    assert f"{ACC} ▁█▅  0.25 -> 0.5  (0.25 to 0.75)" in lines  # (0.5 - 0.25) / 0.5 * 7 = 3.5 -> 4
    assert f"best {ACC}: 0.750 at step 1; last: 0.500" in lines
    assert "held-out responses of step 2" in lines
    said = [line for line in lines if line.startswith("said")]
    assert [line.split()[-1] for line in said] == ["0", "1", "2", "4", "5", "6"]


def test_a_response_cannot_command_the_terminal(make_run, sample):
    said = [sample(True, "\x1b]0;owned\x07 \x1b[31mred", question="\x9bq")]
    folder = make_run("a", [{"\x1b[31m": 1.0}], samples={"eval/step_000000.jsonl": said})
    assert not {"\x1b", "\x07", "\x9b"} & set(story.of(folder))


def test_a_sparkline_averages_what_does_not_fit():
    # bins of two: 0.5, 2.5, 4.5, 6.5
    assert story.sparkline([0, 1, 2, 3, 4, 5, 6, 7], width=4) == "▁▃▆█"


def test_show_refuses_what_is_no_run_and_names_what_it_holds(run, make_run, tmp_path):
    make_run("s/v/seed_0", [{ACC: 1.0}])
    refused = call("show", "s")
    assert refused.exit_code == 2
    assert "s is no run directory but holds 1: s/v/seed_0" in refused.output
    (tmp_path / "none").mkdir()
    assert "none is no run directory and holds none" in call("show", "none").output


def test_a_report_goes_beside_the_run_or_where_it_is_told(run, tmp_path):
    assert call("report", run).output == "wrote a/report.html\n"
    done = call("report", run, "--out", "x/y.html", "--csv")
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == [
        "y.csv", "y.html", "y.summary.csv",
    ]  # fmt: skip


def test_a_report_may_have_a_title_and_a_table(run):
    done = call("report", run, "--title", "Of <mine>", "--table")
    heads, row, *_, last = done.output.splitlines()
    assert (heads.split()[0], row.split()[0], last) == ("VARIANT", "a", "report: a/report.html")
    assert "<h1>Of &lt;mine&gt;</h1>" in (run / "report.html").read_text()


def test_the_end_of_a_run_is_told_briefly(run, make_run):
    lines = call("show", run, "--brief").output.splitlines()
    assert lines == [
        "done in 10 s",
        "  eval/answer_reward: 0.250 -> 0.500",  # first and last, not the best one, 0.75
        "run directory: a  (metrics.jsonl, eval/, rollouts/)",
    ]
    (run / "final").mkdir()
    assert call("show", run, "--brief").output.splitlines()[3:] == [
        "model: a/final  (AutoModelForCausalLM.from_pretrained loads it)",
        "next: alignkit run alignkit:recipes/evaluate.toml -s policy.path=a/final",
    ]
    one = make_run("one", [{ACC: 0.25}], status="failed")
    assert call("show", one, "--brief").output.splitlines()[:2] == [
        "failed after 10 s",
        "  eval/answer_reward: 0.250",
    ]


def test_the_end_of_a_run_tells_of_every_set_it_was_evaluated_on(make_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sets = {"eval/hard/answer_reward": 0.25, "eval/easy/answer_reward": 0.75, "eval/easy/reward": 1}
    told = call("show", make_run("a", [sets]), "--brief").output.splitlines()
    assert told[1:4] == [
        "  eval/hard/answer_reward: 0.250",
        "  eval/easy/answer_reward: 0.750",
        "  eval/easy/reward: 1.000",
    ]
    told = call("show", make_run("b", [{ACC: 0.5} | sets]), "--brief").output.splitlines()
    assert told[1:3] == ["  eval/answer_reward: 0.500", "  eval/hard/answer_reward: 0.250"]


FOLDERS = [
    "plain", "my runs", "it's", 'say "so"', '"a"', "'a'", " a", "~", "~root", "-s", "1#", "a;b",
    "$HOME", "`id`", "a\\b", "*", "é—ü", "[x]", "{x}", "alignkit:recipes", "true", "a=b", "!!", "#",
]  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_the_command_that_comes_next_works_as_it_is_printed(make_run, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    model = make_run(name, [{ACC: 0.5}]) / "final"
    shutil.copytree(shipped() / "data" / "tiny_policy", model)
    *_, last = story.brief(Path.cwd() / name).splitlines()
    assert last.startswith("next: alignkit run ")
    line = last.removeprefix("next: alignkit run ")
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True
    ).stdout.split("\0")[:-1]
    done = call("run", *words, "--dry-run")
    assert done.exit_code == 0, done.output
    assert f"path = {json.dumps(str(model))}" in done.output


def test_entropy_is_that_of_held_out_responses_in_every_table(make_run, load, tmp_path):
    entropies = {"eval/token_entropy": 0.25, "train/token_entropy": 0.75}
    make_run("s/a", [{ACC: 0.5} | entropies])
    (line,) = tables.lines(load(tmp_path / "s"))
    told = {heading: found.value for heading, found in line.others.items()}
    assert told == {"entropy": 0.25, "training entropy": 0.75}
    script = runpy.run_path(str(Path(__file__).resolve().parents[3] / "recipes" / "results.py"))
    assert script["COLUMNS"]["entropy"] == "eval/token_entropy"


def test_a_report_refuses_what_is_no_run(run, tmp_path):
    (tmp_path / "none").mkdir()
    refused = call("report", run, "none", "--out", "r.html")
    assert refused.exit_code == 2
    assert "none is no run directory and holds none" in refused.output
    assert not (tmp_path / "r.html").exists()
    assert "names the HTML file" in call("report", run, "--out", "none").output
    assert call("report").exit_code == 2


def test_the_tables_have_every_row_and_every_estimate(run, tmp_path):
    call("report", run, "--out", "r.html", "--csv")
    with (tmp_path / "r.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["variant"], r["seed"], r["step"], r[ACC], r["train/loss"]) for r in rows] == [
        ("a", "0", "0", "0.25", "1.0"),
        ("a", "0", "1", "0.75", ""),
        ("a", "0", "2", "0.5", ""),
    ]
    with (tmp_path / "r.summary.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert (line["final"], line["best"], line["best step"], line["best n"]) == (
        "0.5", "0.75", "1.0", "1",
    )  # fmt: skip


@pytest.mark.parametrize(("given", "axis"), [((), "step"), (("--against", "time"), "time")])
def test_each_png_is_written_once_against_step_or_wall_clock(run, tmp_path, given, axis):
    pytest.importorskip("matplotlib", reason="needs the extra: pip install 'alignkit[report]'")
    done = call("report", run, "--out", "r.html", "--png", *given)
    assert done.exit_code == 0, done.output
    made = {p.name: p.read_bytes() for p in (tmp_path / "r.png.d").iterdir()}
    assert made.keys() == {f"{name}-by-{axis}.png" for name in ("eval_answer_reward", "train_loss")}
    assert {text[:8] for text in made.values()} == {b"\x89PNG\r\n\x1a\n"}
    assert len(set(made.values())) == len(made)


@pytest.mark.parametrize("settings", [1, 4, 17, 60])
def test_the_legend_of_a_png_stands_outside_its_axes(make_run, load, tmp_path, drawn, settings):
    for i in range(settings):
        counts = {"eval/n_correct": i, "eval/n_format_only": 1, "eval/n_neither": 2}
        rows = [{"train/loss": float(i)} | counts, {"train/loss": 1.0} | counts]
        make_run(f"s/learning_rate={i},group_size={i}/seed_0", rows)
    png.write(load(tmp_path / "s"), tmp_path / "out")
    assert ("legend.png" in drawn) == (settings == 60)
    names = [t.get_text() for f in drawn.values() for x in f.legends for t in x.get_texts()]
    assert len({n for n in names if n.startswith("learning")}) == settings
    assert {"right", "right format only", "neither"} <= set(names)
    for name, figure in drawn.items():
        (axes,) = figure.axes
        place, page = axes.get_window_extent(), figure.bbox
        assert axes.get_legend() is None
        assert name == "legend.png" or place.height > 0.6 * 4.0 * 160  # the plot stays as large
        for legend in figure.legends:
            found = legend.get_window_extent()
            assert name == "legend.png" or not place.overlaps(found)
            assert found.x1 <= page.x1 + 1
            assert found.y0 >= page.y0 - 1


def test_without_matplotlib_pngs_say_what_to_install(run, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    done = call("report", run, "--png")
    assert done.exit_code == 2
    assert "PNGs need matplotlib: pip install 'alignkit[report]'" in done.output
