"""What a run shows in a terminal, and what it prints where there is none."""

import io
import re

import pytest
from rich.console import Console as Terminal

from alignkit.execution import Run
from alignkit_trackers import Console
from alignkit_trackers.console import ConsoleTracker, Pace

PATTERNS = Console().metrics


@pytest.fixture
def run(tmp_path):
    """A run whose printed lines are kept in ``run.lines``."""
    run = Run(tmp_path, {"use": "grpo"})
    run.total_steps = 20  # as the loop of an algorithm says
    run.lines = []
    run.printer = run.lines.append
    run.elapsed = lambda: 62.0
    yield run
    run.close("done")


def terminal(*, is_terminal, width=200):
    return Terminal(file=io.StringIO(), force_terminal=is_terminal, width=width, color_system=None)


def row(seconds, **metrics):
    return {"time": seconds} | {name.replace("__", "/"): v for name, v in metrics.items()}


# ---------------------------------------------------------------- the pace


def test_time_left_is_the_mean_pace_of_the_steps_seen():
    pace = Pace(20)
    assert pace.left(0.0) is None
    pace.see(2, 12.0)  # the first row seen: how long it took says nothing of a step
    assert pace.left(12.0) is None
    pace.see(6, 20.0)
    # 4 steps in 8 s, so 14 more end at 20 + 28 = 48 s; 6 steps in 8 s would be due at 38.7 s,
    # and 6 steps in 20 s at 66.7 s
    assert pace.left(22.0) == pytest.approx(26.0)
    assert pace.left(60.0) == 0.0


def test_time_left_is_unknown_without_a_number_of_steps():
    pace = Pace(None)
    pace.see(0, 0.0)
    pace.see(1, 5.0)
    assert pace.left(5.0) is None
    assert str(pace) == "step 1"


@pytest.mark.parametrize("plan", [{"use": "sft", "n_steps": 0}, {"use": "evaluate"}])
def test_a_run_that_does_not_say_how_long_it_is_shows_no_time_left(tmp_path, plan):
    run, lines = Run(tmp_path, plan), []
    run.printer = lines.append
    run.attach([ConsoleTracker(PATTERNS, 1, terminal(is_terminal=False))])
    run.elapsed = lambda: 5.0
    run.log(1, {"train/loss": 1.0})
    run.log(2, {"train/loss": 1.0})
    run.close("done")
    assert lines == ["step 1  loss 1  [0:05]", "step 2  loss 1  [0:05]", lines[-1]]


# ---------------------------------------------------------------- no terminal


def test_a_step_is_one_plain_line(run):
    tracker = ConsoleTracker(PATTERNS, 1, terminal(is_terminal=False))
    run.attach([tracker])
    tracker.log(0, row(4.0, eval__answer_reward=0.25, eval__n_correct=50.0, time__eval=4.0))
    tracker.log(1, row(6.0, train__loss=float("nan"), train__reward=0.5, train__lr=1e-5))
    tracker.log(2, row(8.0, train__loss=float("inf"), train__token_entropy=1.23456))
    assert run.lines == [
        " step 0/20  eval/answer_reward 0.25  [0:04]",
        " step 1/20  reward 0.5  loss nan  [0:06, 0:38 left]",  # 2 s a step, 19 steps to go
        " step 2/20  loss inf  token_entropy 1.235  [0:08, 0:36 left]",
    ]


def test_steps_between_lines_are_left_out_but_never_an_evaluation(run):
    tracker = ConsoleTracker(PATTERNS, 3, terminal(is_terminal=False))
    run.attach([tracker])
    for step in range(8):
        extra = {"eval__gsm8k__answer_reward": 0.5} if step == 4 else {}
        tracker.log(step, row(float(step), train__loss=0.1, **extra))
    assert [re.match(r" step (\d+)", line)[1] for line in run.lines] == ["0", "3", "4", "6"]
    assert "eval/gsm8k/answer_reward 0.5" in run.lines[2]


def test_an_algorithm_with_metrics_of_its_own_is_shown_too(run):
    tracker = ConsoleTracker(PATTERNS, 1, terminal(is_terminal=False))
    run.attach([tracker])
    tracker.log(1, row(1.0, energy=3.0, time__solve=1.0))
    assert run.lines == [" step 1/20  energy 3  [0:01]"]


def test_the_last_line_sums_the_run_up(run):
    tracker = ConsoleTracker(PATTERNS, 100, terminal(is_terminal=False))
    run.attach([tracker])
    for step, accuracy in enumerate([0.25, 0.5, 0.75]):
        times = {"time__rollout": 6.0, "time__update": 3.0, "time__eval": 1.0}
        tracker.log(step, row(1.0, eval__answer_reward=accuracy, train__reward=9.0, **times))
    tracker.close("done")
    assert run.lines[-1] == (
        "done: step 2/20 in 1:02; eval/answer_reward 0.25 -> 0.75; "
        "time: rollout 60%, update 30%, eval 10%"
    )
    tracker.close("failed")
    assert run.lines[-1].startswith("stopped: step 2/20 in 1:02; ")


def test_a_run_with_one_evaluation_ends_in_its_result(run):
    tracker = ConsoleTracker(PATTERNS, 1, terminal(is_terminal=False))
    run.attach([tracker])
    tracker.log(0, row(1.0, eval__answer_reward=0.25))
    tracker.close("done")
    assert run.lines[-1] == "done: step 0/20 in 1:02; eval/answer_reward 0.25"


def test_output_that_is_no_terminal_is_left_to_the_run(run):
    printer = run.printer
    screen = terminal(is_terminal=False)
    tracker = ConsoleTracker(PATTERNS, 1, screen)
    run.attach([tracker])
    assert run.printer == printer
    tracker.log(0, row(0.0, train__loss=1.0))
    tracker.close("done")
    assert screen.file.getvalue() == ""


# ---------------------------------------------------------------- a terminal


def visible(screen):
    """The characters a terminal was sent, without control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.file.getvalue()).replace("\r", "\n")


def test_a_terminal_shows_progress_time_left_and_metrics(run):
    screen = terminal(is_terminal=True)
    tracker = ConsoleTracker(PATTERNS, 1, screen)
    run.attach([tracker])
    tracker.log(0, row(2.0, eval__answer_reward=0.25))
    tracker.log(5, row(12.0, train__reward=0.5, train__loss=float("nan")))
    screen.print(tracker._screen())
    tracker.close("done")
    seen = visible(screen)
    # 2 s a step from 12 s on: 15 steps end at 42 s, which the clock at 62 s is past
    assert re.search(r" step 5/20 +━{7}╸ +1:02, 0:00 left", seen)
    assert "reward 0.5  loss nan" in seen
    assert " step 0/20  eval/answer_reward 0.25\n" in seen


def test_what_the_run_says_stays_whole_above_the_display(run):
    screen = terminal(is_terminal=True, width=40)
    tracker = ConsoleTracker(PATTERNS, 1, screen)
    run.attach([tracker])
    text = "saved [bold]runs/a[/bold] :smile: " + "x" * 60
    run.say(text)
    assert f"{text}\n" in visible(screen)  # neither markup, nor emoji, nor wrapped at 40
    assert run.lines == []
    tracker.close("failed")
    run.say("afterwards")
    assert run.lines == ["stopped: step 0/20 in 1:02", "afterwards"]  # the old printer is back
    assert "\x1b[?25h" in screen.file.getvalue()  # and the cursor


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(run, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    tracker = ConsoleTracker(PATTERNS, 1, terminal(is_terminal=True))
    run.attach([tracker])
    tracker.log(0, row(0.0, train__loss=1.0))
    assert run.lines == [" step 0/20  loss 1  [0:00]"]
