"""`alignkit show` with a category, a step, a length or a text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignkit.engine.evaluation.statistics import category as engine_category
from alignkit.protocols import Reward
from alignkit.testing import run_cli
from alignkit_report.responses import Wanted
from alignkit_report.samples import category

RIGHT = {"format_reward": 1.0, "answer_reward": 1.0}
FORMAT = {"format_reward": 1.0, "answer_reward": 0.0}
NEITHER = {"format_reward": 0.0, "answer_reward": 0.0}


def row(kind, text, length, question="2 + 2 = ?"):
    return {
        "question": question, "gold": "4", "response": text, "reward": kind["answer_reward"],
        **kind, "response_length": length, "finish_reason": "stop",
    }  # fmt: skip


@pytest.fixture
def run(make_run):
    """A run with held-out responses of two steps and training responses of one."""
    late = [row(RIGHT, "right one", 5), row(NEITHER, "lost", 9), row(FORMAT, "five, I think", 7)]
    late += [row(FORMAT, f"wrong {i}", 10 + i, question="3 + 3 = ?") for i in range(12)]
    return make_run(
        "one",
        [{}, {}],
        samples={
            "eval/step_000000.jsonl": [row(NEITHER, "early", 3), row(FORMAT, "early five", 4)],
            "eval/step_000010.jsonl": late,
            "rollouts/step_000005.jsonl": [row(RIGHT, "trained on", 6)],
        },
    )


def said(run, *options):
    """Return the texts of the responses that are shown."""
    done = run_cli("show", run, *options)
    assert done.status == 0, done.stderr
    return re.findall(r"^    said   (.*)$", done.stdout, re.M), done.stdout


def test_ten_of_a_category_come_from_the_last_step_below_the_counts_of_all(run):
    texts, text = said(run, "--category", "format_only")
    assert texts == ["five, I think", *(f"wrong {i}" for i in range(9))]
    first, second = text.splitlines()[:2]
    assert first == "15 held-out responses of step 10: 1 correct, 13 format_only, 1 neither"
    assert second == "13 match; 10 shown"
    assert "format_only  reward 0, format reward 1, answer reward 0, 7 tokens" in text


@pytest.mark.parametrize(
    ("options", "want"),
    [
        (("--category", "correct"), ["right one"]),
        (("--category", "neither"), ["lost"]),
        (("--category", "format_only", "--n", "1"), ["five, I think"]),
        (("--n", "2"), ["right one", "lost"]),
        (("--step", "0"), ["early", "early five"]),
        (("--step", "0", "--category", "format_only"), ["early five"]),
        (("--step", "5"), ["trained on"]),
        (("--of", "rollouts"), ["trained on"]),
        (("--of", "eval", "--longer", "21"), ["wrong 11"]),
        (("--longer", "9", "--shorter", "11"), ["lost", "wrong 0", "wrong 1"]),
        (("--shorter", "5"), ["right one"]),
        (("--text", "FIVE"), ["five, I think"]),
        (("--text", "3 + 3", "--n", "1"), ["wrong 0"]),
        (("--text", "right", "--category", "neither"), []),
    ],
    ids=" ".join,
)
def test_filters_choose(run, options, want):
    assert said(run, *options)[0] == want


def test_without_a_filter_it_is_the_story(run):
    assert "plan" in run_cli("show", run).stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--step", "7"), "no saved responses of step 7 in eval/ or rollouts/"),
        (("--of", "rollouts", "--step", "10"), "no saved responses of step 10 in rollouts/"),
    ],
    ids=["step", "kind"],
)
def test_a_step_that_kept_none_says_which_did(run, options, says):
    done = run_cli("show", run, *options)
    assert done.status == 2
    assert says in done.stderr
    assert "eval/ of steps 0, 10 and rollouts/ of steps 5" in done.stderr


def test_a_run_that_kept_nothing_and_no_run_say_so(make_run, tmp_path):
    bare = make_run("sweep/bare", [{}])
    assert "no saved responses" in run_cli("show", bare, "--category", "correct").stderr
    assert "show one of" in run_cli("show", tmp_path / "sweep", "--category", "correct").stderr


def test_a_response_cannot_command_the_terminal(make_run):
    samples = {"eval/step_000000.jsonl": [row(RIGHT, "\x1b[2Jgone", 3)]}
    shown = run_cli("show", make_run("one", [{}], samples=samples), "--n", "1").stdout
    assert "\x1b" not in shown
    assert "gone" in shown


REWARDS = st.sampled_from([0.0, 0.5, 1.0, 2.0])


@given(st.dictionaries(st.sampled_from(["answer", "format"]), REWARDS), REWARDS)
def test_a_row_has_the_category_that_the_engine_counts_it_under(parts, total):
    rewards = {f"{name}_reward": value for name, value in parts.items()}
    assert category({"reward": total, **rewards}) == engine_category(Reward(total, parts))


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_lengths_are_bounds_that_count_themselves_in(length, least, most):
    taken = Wanted(longer=least, shorter=most).takes(row(RIGHT, "a", length))
    assert taken == (least <= length <= most)
