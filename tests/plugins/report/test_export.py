"""Responses for other programs, and the leaderboard of alpaca_eval."""

import itertools
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


@pytest.mark.parametrize("missing", ["", "nan"])
def test_a_model_without_length_control_comes_after_those_with_it(tmp_path, missing):
    """The order of the file's rows says nothing."""
    lines = BOARD.splitlines()
    for rows in itertools.permutations(lines[1:]):
        file = tmp_path / "leaderboard.csv"
        file.write_text("\n".join([lines[0], *rows]))
        shown = export.leaderboard(file).splitlines()[1:]
        assert [line.split()[0] for line in shown] == ["best", "mine", "older"]
    if missing:
        file.write_text(f",win_rate\na,{missing}\n")
        with pytest.raises(AlignkitError, match="not a number"):
            export.leaderboard(file)


@pytest.mark.parametrize(
    "content",
    [b",win_rate\n\xff,1\n", b",win_rate\n" + b"a" * 200_000 + b",1\n"],
    ids=["no UTF-8", "a huge cell"],
)
def test_a_file_that_is_no_table_is_an_error(tmp_path, content):
    file = tmp_path / "leaderboard.csv"
    file.write_bytes(content)
    with pytest.raises(AlignkitError, match="no table"):
        export.leaderboard(file)


def test_a_leaderboard_that_cannot_be_read_is_an_error(tmp_path):
    for file in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(AlignkitError, match="cannot read"):
            export.leaderboard(file)


@pytest.mark.parametrize("key", ["id", "question", "response"])
@pytest.mark.parametrize("value", [None, 3])
def test_a_response_without_its_texts_is_named(run, key, value):
    wrong = json.dumps(row(2, **{key: value}))
    (run / "eval" / "step_000013.jsonl").write_text(f"{json.dumps(row(1))}\n{wrong}\n")
    with pytest.raises(AlignkitError, match=f"response 2 has no '{key}'"):
        export.responses(run, "", None)


@pytest.mark.parametrize("option", ["--question", "--response"])
@pytest.mark.parametrize("key", ["", "id", "gold", "by", "reward", "answer_reward", "same"])
def test_no_value_of_json_lines_takes_the_key_of_another(run, option, key):
    other = {"--question": "--response", "--response": "--question"}[option]
    words = [option, key, *([other, "same"] if key == "same" else [])]
    done = run_cli("export", run, "--as", "jsonl", "--out", run / "o.jsonl", *words)
    assert (done.status, "cannot be the key" in done.stderr) == (2, True)
    assert not (run / "o.jsonl").exists()


@pytest.mark.parametrize(
    "words",
    [["alpaca_eval", "--generator"], ["jsonl", "--question"], ["jsonl", "--response"]],
    ids=" ".join,
)
def test_a_name_without_utf_8_leaves_the_file_alone(run, words):
    out = run / "out"
    out.write_text("kept")
    done = run_cli("export", run, "--out", out, "--as", *words, "\udcff")
    assert (done.status, "has no UTF-8" in done.stderr) == (2, True)
    assert out.read_text() == "kept"
