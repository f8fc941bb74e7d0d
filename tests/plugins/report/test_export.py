"""Responses for other programs, and the leaderboard of alpaca_eval."""

import json

import pytest

from alignkit.errors import AlignkitError
from alignkit.testing import run_cli
from alignkit_report import export


def row(n, **more):
    texts = {"question": f"Say {n}.", "response": f"«{n}»\n", "prompt": f"p{n}"}
    return {"id": f"i{n}", **texts, "gold": "", "reward": 0.5, "answer_reward": 0.5, **more}


@pytest.fixture
def run(tmp_path):
    """A run directory with responses of two steps, and of a set."""
    for where, step, rows in [
        ("eval", 0, [row(1)]),
        ("eval", 12, [row(1, by="art"), row(2, by="tea")]),
        ("eval/safety", 12, [row(3)]),
    ]:
        folder = tmp_path / "mine" / where
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(r) + "\n" for r in rows)
        (folder / f"step_{step:06}.jsonl").write_text(lines)
    return tmp_path / "mine"


def test_alpaca_eval_takes_an_array_with_these_keys(run):
    out = run.parent / "out.json"
    done = run_cli("export", run, "--as", "alpaca_eval", "--out", out)
    assert done.status == 0, done.stderr
    assert json.loads(out.read_text(encoding="utf-8")) == [
        {"instruction": "Say 1.", "output": "«1»\n", "generator": "mine", "dataset": "art"},
        {"instruction": "Say 2.", "output": "«2»\n", "generator": "mine", "dataset": "tea"},
    ]
    assert "2 responses" in done.stdout


def test_a_step_a_set_and_a_generator_can_be_chosen(run):
    out = run.parent / "out.json"
    args = ["export", run, "--as", "alpaca_eval", "--out", out, "--generator", "mine-8b"]
    run_cli(*args, "--step", "0")
    assert json.loads(out.read_text(encoding="utf-8")) == [
        {"instruction": "Say 1.", "output": "«1»\n", "generator": "mine-8b"}
    ]
    run_cli(*args, "--set", "safety")
    assert [r["instruction"] for r in json.loads(out.read_text(encoding="utf-8"))] == ["Say 3."]


def test_json_lines_have_the_keys_asked_for(run):
    out = run.parent / "out.jsonl"
    keys = ["--question", "prompts_final", "--response", "output"]
    assert run_cli("export", run, "--as", "jsonl", "--out", out, *keys).status == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(r["id"], r["prompts_final"], r["output"]) for r in rows] == [
        ("i1", "Say 1.", "«1»\n"),
        ("i2", "Say 2.", "«2»\n"),
    ]
    assert rows[0].keys() == {
        "id", "prompts_final", "output", "gold", "by", "reward", "answer_reward"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "step", "said"),
    [
        ("", 3, "has no responses of step 3; steps kept: 0, 12"),
        ("other", None, "has no responses; steps kept: none"),
        ("../eval", None, "set"),
    ],
)
def test_what_is_not_there_is_named(run, name, step, said):
    with pytest.raises(AlignkitError, match=said):
        export.responses(run, name, step)


def test_a_file_that_cannot_be_written_is_an_error(run):
    done = run_cli("export", run, "--as", "jsonl", "--out", run / "no" / "out.jsonl")
    assert done.status == 2
    assert "cannot write" in done.stderr


BOARD = """,win_rate,standard_error,n_total,avg_length,mode,length_controlled_winrate
mine,12.5,1.25,805,1300,community,15.625
best,50.0,0.0,805,2049,minimal,50.0
older,14.0,1.0,805,2900,community,
"""


def test_the_leaderboard_is_shown_the_best_first(tmp_path):
    file = tmp_path / "leaderboard.csv"
    file.write_text(BOARD.replace("community,\n", "community,9\n"))
    done = run_cli("leaderboard", file)
    assert done.status == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["model", "best", "mine", "older"]
    # Length-controlled 9 ranks below 15.6, though its plain win rate is higher.
    assert lines[2][1:] == ["12.50", "15.62", "1.25", "805", "1300"]


def test_without_length_control_the_win_rate_ranks(tmp_path):
    file = tmp_path / "leaderboard.csv"
    file.write_text("\n".join(line.rsplit(",", 1)[0] for line in BOARD.splitlines()))
    assert [line.split()[0] for line in export.leaderboard(file).splitlines()[1:]] == [
        "best",
        "older",
        "mine",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "no column"), ("a,b\n1,2\n", "no column"), (",win_rate\nx,high\n", "not a number")],
)
def test_another_file_is_refused(tmp_path, text, said):
    file = tmp_path / "other.csv"
    file.write_text(text)
    with pytest.raises(AlignkitError, match=said):
        export.leaderboard(file)
