"""`alignkit show` and `alignkit report`: what they print, write, and refuse."""

import csv

import pytest
from click.testing import CliRunner

from alignkit.cli import main
from alignkit_report import story

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


def test_pngs_are_against_step_and_wall_clock(run, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra: pip install 'alignkit[report]'")
    done = call("report", run, "--out", "r.html", "--png")
    assert done.exit_code == 0, done.output
    made = {p.name: p.read_bytes()[:8] for p in (tmp_path / "r.png.d").iterdir()}
    assert {"eval_answer_reward-by-step.png", "eval_answer_reward-by-time.png"} <= made.keys()
    assert set(made.values()) == {b"\x89PNG\r\n\x1a\n"}


def test_without_matplotlib_pngs_say_what_to_install(run, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    done = call("report", run, "--png")
    assert done.exit_code == 2
    assert "PNGs need matplotlib: pip install 'alignkit[report]'" in done.output
