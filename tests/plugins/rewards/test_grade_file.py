"""Grading a file of saved responses."""

import gzip
import io
import json
import math
import subprocess
import sys

import pytest

from alignkit import AlignkitError, plugins
from alignkit.testing import run_cli
from alignkit_grading.files import grade_file, reward_for


@pytest.fixture(scope="module")
def registry():
    return plugins.load()


@pytest.fixture
def saved(tmp_path):
    def write(*rows):
        path = tmp_path / "saved.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def tagged(answer):
    return f"t </think> <answer>{answer}</answer>"


def test_categories_and_reasons(registry, saved):
    path = saved(
        {"id": "a", "response": tagged("x = 7/2"), "gold": "3.5"},
        {"id": "b", "response": tagged("7"), "gold": 8},
        {"id": "c", "response": ["7", tagged("7")], "gold": ["6", 7]},
    )
    summary = grade_file(path, reward_for("r1_zero", registry))
    assert dict(summary.categories) == {"(1,1)": 2, "(1,0)": 1, "(0,0)": 1}
    assert summary.mean == 0.5
    # rewards 1, 0, 0, 1: variance with n - 1 is 1/3, over n is 1/12 (with n it would be 1/16)
    assert summary.standard_error == pytest.approx(math.sqrt(1 / 12))
    verdicts = [json.loads(line) for line in summary.verdicts.read_text().splitlines()]
    assert [v["id"] for v in verdicts] == ["a", "b", "c#0", "c#1"]
    assert [v["why"] for v in verdicts] == ["expression", "different", "no answer", "exact"]
    assert [v["category"] for v in verdicts] == ["(1,1)", "(1,0)", "(0,0)", "(1,1)"]
    assert "50.0 %  format and answer right" in summary.table()


def test_columns_and_output_can_be_named(registry, saved, tmp_path):
    path = saved({"said": tagged("4"), "truth": "4"})
    columns = {"response": "said", "gold": "truth"}
    out = tmp_path / "out.jsonl"
    summary = grade_file(path, reward_for("r1_zero", registry), columns=columns, out=out)
    assert summary.categories["(1,1)"] == 1
    assert json.loads(out.read_text())["reward"] == 1.0


def test_a_reward_may_come_from_a_recipe_or_be_adjusted(registry, tmp_path):
    recipe = tmp_path / "grpo.toml"
    recipe.write_text(
        'use = "grpo"\n[reward]\nuse = "weighted_sum"\n[reward.terms.right]\nuse = "r1_zero"\n'
        '[reward.terms.short]\nuse = "length_penalty"\nfree = 1\nspan = 1\n'
    )
    from alignkit.protocols import Example

    for reward, total in (
        (reward_for(str(recipe), registry), 0.0),
        (reward_for("r1_zero", registry, ["percent='value'"]), 1.0),
    ):
        assert reward([tagged("4")], [Example("0", "", "4")])[0].total == total


@pytest.mark.parametrize(
    ("reward", "message"),
    [("r1_zer", "Did you mean 'r1_zero'"), ("weighted_sum", "terms")],
)
def test_a_wrong_reward_is_explained(registry, reward, message):
    with pytest.raises(AlignkitError, match=message):
        reward_for(reward, registry)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"response": "x"}\n', r"saved.jsonl:1: no column 'gold' or .* for the gold"),
        (
            '{"response": 3, "gold": "4"}\n',
            r":1: column 'response' holds a number where",
        ),
        ('{"response": "x", "gold": "4"}\nnonsense\n', r":2: broken JSON: Expecting value"),
        ("[1]\n", r":1: a number where a row must be an object"),
        ("", "holds no responses"),
        ('{"response": null, "gold": "4"}', r":1: column 'response' holds null"),
        (
            '{"response": "x", "gold": "4"}\n{"response": "x", "gold": null}',
            r":2: .*'gold' holds",
        ),
        ('[{"response": "x", "gold": {"a": 1}}]', r":1: column 'gold' holds an object"),
        ('[{"response": "x", "gold": [4, null]}]', r":1: column 'gold' holds an array with null"),
        ('[{"response": "x", "gold": NaN}]', r":1: column 'gold' holds NaN .* another with --gold"),
        ('[{"response": "x", "gold": ""}]', r":1: column 'gold' is empty"),
        ('{"response": ["x", null], "gold": "4"}', r":1: column 'response' holds null"),
    ],
)
def test_a_bad_file_is_named_with_its_line(registry, tmp_path, text, message):
    path = tmp_path / "saved.jsonl"
    path.write_text(text)
    with pytest.raises(AlignkitError, match=message):
        grade_file(path, reward_for("format_bonus", registry))
    assert not (tmp_path / "saved.verdicts.jsonl").exists()


def test_the_file_itself_is_not_overwritten(registry, saved):
    path = saved({"response": "x", "gold": "4"})
    with pytest.raises(AlignkitError, match="overwritten"):
        grade_file(path, reward_for("format_bonus", registry), out=path)


# ---------------------------------------------------------------- what people have

ROWS = [
    {"id": "a", "response": tagged("4"), "gold": "4"},
    {"id": "b", "response": tagged("5"), "gold": "4"},
]
LAYOUTS = {
    "lines": lambda: "\n\n".join(map(json.dumps, ROWS)).encode(),
    "BOM": lambda: b"\xef\xbb\xbf" + "\n".join(map(json.dumps, ROWS)).encode(),
    "array": lambda: json.dumps(ROWS).encode(),
    "gzip": lambda: gzip.compress(json.dumps(ROWS).encode()),
    "csv": lambda: "\n".join(["id,response,gold", *(",".join(r.values()) for r in ROWS)]).encode(),
    "parquet": lambda: as_parquet(ROWS),
}


def as_parquet(rows):
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    sink = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


def verdicts(summary):
    return [json.loads(line) for line in summary.verdicts.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_whatever_a_data_set_is_read_from_is_graded(registry, tmp_path, layout):
    path = tmp_path / "saved.jsonl"
    path.write_bytes(LAYOUTS[layout]())
    found = verdicts(grade_file(path, reward_for("r1_zero", registry)))
    assert [(v["id"], v["reward"]) for v in found] == [("a", 1.0), ("b", 0.0)]


def test_the_same_columns_as_in_data_are_read(registry, saved):
    chat = [{"role": "user", "content": "2+2?"}]
    path = saved(
        {"prompt": chat, "output": tagged("4"), "reward_model": {"ground_truth": "4"}},
        {"prompt": chat, "output": [{"role": "assistant", "content": tagged("4")}], "answer": 4},
        {"prompt": chat * 2, "output": tagged("4"), "extra_info": {"answer": ["5", "4"]}},
    )
    found = verdicts(grade_file(path, reward_for("r1_zero", registry)))
    assert [v["reward"] for v in found] == [1.0, 1.0, 1.0]
    assert [v["gold"] for v in found] == ["4", "4", ["5", "4"]]
    with pytest.raises(AlignkitError, match=r":3: column 'prompt' holds a chat of 2 turns"):
        grade_file(path, reward_for("r1_zero", registry), columns={"question": "prompt"})
    assert grade_file(path, reward_for("r1_zero", registry), limit=2).n == 2


def test_halves_of_surrogate_pairs_are_graded_and_written_as_they_are(registry, saved):
    text = "\ud83d" + tagged("4")
    path = saved({"response": text, "gold": "4"}, {"response": "\udc00", "gold": "4"})
    found = verdicts(grade_file(path, reward_for("r1_zero", registry)))
    assert [v["response"] for v in found] == [text, "\udc00"]
    assert [v["reward"] for v in found] == [1.0, 0.0]


@pytest.mark.parametrize("way", ["itself", "up and down", "symlink", "hard link", "of the input"])
def test_the_file_is_not_overwritten_by_any_path(registry, saved, tmp_path, way):
    path, out = saved(ROWS[0]), tmp_path / "out.jsonl"
    before = path.read_bytes()
    if way == "itself":
        out = path
    elif way == "up and down":
        out = tmp_path / ".." / tmp_path.name / path.name
    elif way == "symlink":
        out.symlink_to(path)
    elif way == "hard link":
        out.hardlink_to(path)
    else:
        out.symlink_to(path)
        path, out = out, path
    with pytest.raises(AlignkitError, match="overwritten"):
        grade_file(path, reward_for("format_bonus", registry), out=out)
    assert path.read_bytes() == before


def grade(*arguments, **streams):
    command = [sys.executable, "-m", "alignkit", "grade", *map(str, arguments)]
    command += ["--reward", "format_bonus"]
    return subprocess.run(command, capture_output=True, check=False, **streams)


def test_standard_input_is_read_and_never_written(saved, tmp_path):
    path, out = saved(*ROWS), tmp_path / "v.jsonl"
    before = path.read_bytes()
    with path.open("rb") as stream:
        done = grade("/dev/stdin", "--out", path, stdin=stream)
    assert (done.returncode, path.read_bytes()) == (2, before)
    assert b"overwritten" in done.stderr
    done = grade("/dev/stdin", input=before)
    assert (done.returncode, b"choose --out" in done.stderr) == (2, True)
    done = grade("/dev/stdin", "--out", out, input=before)
    assert (done.returncode, len(out.read_text().splitlines())) == (0, 2)


def test_a_file_that_is_also_standard_output_is_not_overwritten(saved):
    path = saved(*ROWS)
    before = path.read_bytes()
    with path.open("ab") as stream:
        command = [sys.executable, "-m", "alignkit", "grade", path, "--reward", "format_bonus"]
        done = subprocess.run([*command, "--out", "/dev/stdout"], stdout=stream, check=False)
    assert (done.returncode, path.read_bytes()) == (2, before)


def test_verdicts_that_cannot_be_written_are_one_line(registry, saved, tmp_path):
    out = tmp_path / "no" / "such" / "folder"
    with pytest.raises(AlignkitError, match="verdicts cannot be written: No such file"):
        grade_file(saved(*ROWS), reward_for("format_bonus", registry), out=out)


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_rows_without_the_id_asked_for_are_named_by_their_lines(tmp_path, bom):
    file, out = tmp_path / "rows.jsonl", tmp_path / "verdicts.jsonl"
    row = {"question": "q", "answer": "2", "response": "so </think> <answer> 2 </answer>"}
    rows = [row, {**row, "key": "seven"}]
    file.write_text(bom + "".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    done = run_cli("grade", file, "--reward", "r1_zero", "--id", "key", "--out", out)
    assert done.status == 0, done.stderr
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["1", "seven"]
