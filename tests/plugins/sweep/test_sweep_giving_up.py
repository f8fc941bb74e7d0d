"""When a run of a sweep is given up: it diverges, or its time is over."""

import json
import time
from pathlib import Path

import pytest

from alignkit_sweep import runner
from alignkit_sweep.child import SPENT
from alignkit_sweep.plans import Plans
from alignkit_sweep.stop import Divergence, StopTable


def diverged(seen_rows, stop):
    """Why a run with these rows is diverged, or ""."""
    seen = Divergence(stop)
    for row in seen_rows:
        seen.add(row)
    return seen.reason()


def rows(rewards, losses=None):
    losses = losses or [0.1] * len(rewards)
    return [
        {"step": i, "train/reward": r, "train/loss": x}
        for i, (r, x) in enumerate(zip(rewards, losses, strict=True))
    ]


def test_a_run_diverges_when_the_loss_is_lost_for_some_steps_in_a_row():
    stop = StopTable(nonfinite_steps=2)
    assert diverged(rows([0.5] * 4, [0.1, None, 0.1, None]), stop) == ""
    assert "not finite for 2 steps, to step 3" in diverged(
        rows([0.5] * 4, [0.1, 0.1, None, None]), stop
    )
    assert diverged(rows([0.5] * 3, [None] * 3), StopTable(nonfinite_steps=0)) == ""


def test_an_evaluation_row_without_a_loss_is_no_lost_loss():
    stop = StopTable(nonfinite_steps=1)
    assert diverged([{"step": 0, "eval/answer_reward": 0.3}], stop) == ""


def test_a_run_diverges_when_its_reward_collapses_but_not_when_it_starts_slowly():
    stop = StopTable(steps=2, fraction=0.1)
    assert diverged(rows([0.0] * 20), stop) == ""
    assert diverged(rows([0.0, 0.0, 0.0, 0.4, 0.4]), stop) == ""
    # means of two: 0.4, 0.4, 0.2, 0.02; the last against the best of those before it began
    assert "fell from 0.4 to 0.02 at step 4" in diverged(rows([0.4, 0.4, 0.4, 0.0, 0.04]), stop)
    assert diverged(rows([0.4, 0.4, 0.4, 0.0, 0.1]), stop) == ""  # 0.05 is above a tenth
    assert diverged(rows([0.4, 0.4, 0.4, 0.0, 0.0]), StopTable(steps=2, fraction=0)) == ""


def test_a_diverged_run_is_stopped_logged_and_not_made_again(sweep, make, place):
    text = 'recipe = "toy.toml"\n[set]\nfail = "nan"\n[stop]\nnonfinite_steps = 3\n'
    made = make(sweep(text))
    (run,) = made.plans.finished()
    assert run.status == "diverged"
    assert len(run.rows) < 400  # ended early
    assert "not finite for 3 steps" in run.reason
    assert made.failures == []
    assert make(sweep(text)).started == []


def test_a_run_is_stopped_when_its_time_is_over(sweep, make):
    text = f'recipe = "toy.toml"\nmax_hours = {0.3 / 3600}\n[set]\nfail = "slow"\n'
    made = make(sweep(text))
    (run,) = made.plans.finished()
    assert run.status == "out of time"
    assert make(sweep(text)).started == []


CATCH = """
import signal, sys
from pathlib import Path

def caught(number, frame):
    (Path(sys.argv[4]) / signal.Signals(number).name).touch()
    sys.exit(75)

signal.signal(signal.SIGUSR1, caught)
signal.signal(signal.SIGTERM, caught)
"""


@pytest.mark.parametrize(
    ("fail", "more", "name"),
    [("slow", f"max_hours = {0.3 / 3600}", "SIGUSR1"), ("nan", "[stop]", "SIGTERM")],
)
def test_only_a_run_that_is_out_of_time_is_asked_for_its_model(
    sweep, make, place, fail, more, name
):
    child = (place / "child.py").read_text().lstrip()
    (place / "child.py").write_text(CATCH + child)
    made = make(sweep(f'recipe = "toy.toml"\nset.fail = "{fail}"\n{more}\n'))
    (run,) = made.plans.finished()
    assert [p.name for p in run.path.glob("SIG*")] == [name]


@pytest.mark.parametrize(
    ("manifest", "row"),
    [({"status": "interrupted", "seconds": 90.0}, None), ({"status": "running"}, {"time": 90.0})],
    ids=["interrupted", "killed"],
)
def test_the_time_before_a_restart_counts(sweep, make, place, monkeypatch, manifest, row):
    """90 of 90.3 seconds are over when the sweep goes on; the rest would take 8 seconds."""
    monkeypatch.setattr(runner.Runner, "_resumable", lambda *_: True)
    swept = sweep(f'recipe = "toy.toml"\nmax_hours = {90.3 / 3600}\n[set]\nfail = "slow"\n')
    plans = Plans(swept, Path("out"))
    (job,) = plans.jobs(*plans.chosen(()))
    job.folder.mkdir(parents=True)
    (job.folder / "manifest.json").write_text(json.dumps(manifest))
    (job.folder / "recipe.toml").write_text("")
    if row:
        (job.folder / "metrics.jsonl").write_text(json.dumps({"step": 1} | row) + "\n")
    (place / "child.py").write_text("import time\ntime.sleep(8)\n")
    began = time.monotonic()
    made = make(swept)
    assert time.monotonic() - began < 7
    assert [run.status for run in made.plans.finished()] == ["out of time"]


def test_time_that_a_kill_took_back_counts(sweep, make, place, monkeypatch):
    """A run goes on at its last checkpoint, with its clock of then, however often it is killed."""
    monkeypatch.setattr(runner.Runner, "_resumable", lambda *_: True)
    text = 'recipe = "toy.toml"\nmax_hours = {}\n[set]\nfail = "slow"\n'
    plans = Plans(sweep(text.format(1.0)), Path("out"))
    (job,) = plans.jobs(*plans.chosen(()))
    job.folder.mkdir(parents=True)
    (job.folder / "manifest.json").write_text('{"status": "running"}')
    (job.folder / "recipe.toml").write_text("")
    row = json.dumps({"step": 1, "time": 0.1}) + "\n"
    (job.folder / "metrics.jsonl").write_text(row)
    (place / "child.py").write_text("import time\ntime.sleep(0.5)\n")
    for times in (1, 2):
        make(sweep(text.format(1.0)))
        assert 0.5 * times <= job.spent() * 3600 < 0.5 * times + 8
    assert (job.folder / "metrics.jsonl").read_text() == row
    (place / "child.py").write_text("import time\ntime.sleep(8)\n")
    made = make(sweep(text.format(job.spent() + 0.3 / 3600)))
    assert [run.status for run in made.plans.finished()] == ["out of time"]


def test_a_run_that_begins_anew_has_its_whole_time(sweep, make, place):
    text = f'recipe = "toy.toml"\nmax_hours = {30 / 3600}\n[set]\nfail = "nan"\n'
    plans = Plans(sweep(text), Path("out"))
    (job,) = plans.jobs(*plans.chosen(()))
    job.folder.parent.mkdir(parents=True)
    job.note(1.0)
    made = make(sweep(text))
    assert [run.status for run in made.plans.finished()] != ["out of time"]
    assert float(job.beside(SPENT).read_text()) < 30


def test_a_budget_of_the_command_line_replaces_that_of_the_file(sweep, make):
    text = 'recipe = "toy.toml"\nmax_hours = 9\n[set]\nfail = "slow"\n'
    made = make(sweep(text, max_hours=0.3 / 3600))
    (run,) = made.plans.finished()
    assert run.status == "out of time"


def test_a_run_may_be_stopped_before_it_has_a_directory(sweep, make):
    made = make(sweep('recipe = "toy.toml"\nmax_hours = 1e-9\n'))
    assert [r.status for r in made.plans.finished()] == ["out of time"]
    assert made.failures == []
