"""The data sets gsm8k and math, made up and real."""

import json
import re

import pytest

from alignkit_data import Gsm8k, Math
from rows_of_data import problems, write


def test_gsm8k_splits_the_worked_solution_from_the_number(tmp_path):
    worked = "48/2 = <<48/2=24>>24 clips.\nThat is <<24*50=1200>>1,200 in all.\n#### 1,200"
    path = write(tmp_path / "train.jsonl", {"question": "How many?", "answer": worked, "n": 1})
    [example] = Gsm8k(path=str(path)).build()
    assert (example.id, example.question, example.answer) == ("train.jsonl:1", "How many?", "1200")
    assert example.extra == {
        "n": 1,
        "solution": "48/2 = 24 clips.\nThat is 1,200 in all.",
    }


@pytest.mark.parametrize("worked", ["The answer is 5", "It is 5 ####", "5 #### , "])
def test_gsm8k_refuses_a_row_without_a_number_after_the_mark(tmp_path, worked):
    path = write(tmp_path / "d.jsonl", {"question": "q", "answer": worked})
    [(key, message)] = problems(Gsm8k(path=str(path)))
    assert key == "answer"
    assert message.startswith(f"{path}:1: column 'answer' has no answer after '####'")
    assert message.endswith('for bare answers use = "jsonl"')


def test_gsm8k_takes_the_split_from_a_folder(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / f"{split}.jsonl", {"question": split, "answer": "#### 1"})
    assert [e.question for e in Gsm8k(path=str(tmp_path), split="test").build()] == ["test"]
    assert problems(Gsm8k(path=str(tmp_path), split="dev")) == [
        (
            "path",
            f"{tmp_path}: the folder holds no dev.jsonl or a folder dev with "
            ".jsonl, .json, .jsonl.gz, .json.gz, .csv, .tsv, .csv.gz, .tsv.gz, .parquet files",
        )
    ]


@pytest.mark.parametrize(("split", "rows"), [("train", 7473), ("test", 1319)])
def test_gsm8k_gold_answers_of_the_real_data_are_all_whole_numbers(shared_data, split, rows):
    data = Gsm8k(path=str(shared_data / "gsm8k"), split=split).build()
    assert len(data) == rows
    assert all(e.answer.removeprefix("-").isdigit() for e in data)
    assert not [e.id for e in data if re.search("<<|####", e.extra["solution"])]
    assert len({e.id for e in data}) == rows


def test_math_takes_the_answer_column_or_the_last_box(tmp_path):
    path = write(
        tmp_path / "d.jsonl",
        {"problem": "p1", "solution": r"\boxed{9}", "answer": "4", "unique_id": "t/1.json"},
        {"problem": "p2", "solution": r"\boxed{1}, so \boxed{\frac{1}{2}}", "level": 3},
    )
    first, second = Math(path=str(path)).build()
    assert (first.id, first.question, first.answer) == ("t/1.json", "p1", "4")
    assert first.extra == {"solution": r"\boxed{9}"}
    assert (second.id, second.question, second.answer) == ("d.jsonl:2", "p2", r"\frac{1}{2}")
    assert second.extra == {"solution": r"\boxed{1}, so \boxed{\frac{1}{2}}", "level": 3}


def test_math_reads_a_folder_of_one_file_a_problem(tmp_path):
    for name, gold in (("algebra/1", 1), ("algebra/10", 10), ("geometry/1", 2)):
        path = tmp_path / "train" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"problem": "p", "solution": f"\\boxed{{{gold}}}"}, indent=1))
    data = Math(path=str(tmp_path), split="train").build()
    assert [(e.id, e.answer) for e in data] == [
        ("train/algebra/1.json:1", "1"),
        ("train/algebra/10.json:1", "10"),
        ("train/geometry/1.json:1", "2"),
    ]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"solution": "so 5"}, r"column 'solution' has no answer in \boxed{}, and there is no "),
        ({"solution": r"\boxed{5"}, r"column 'solution' has no answer in \boxed{}, and there is"),
        ({"answer": "", "solution": r"\boxed{5}"}, "column 'answer' is empty; fill it"),
        ({"gold": "5"}, "no column 'answer'. Columns there: problem, gold; map another column"),
    ],
)
def test_math_refuses_a_row_without_a_gold_answer(tmp_path, row, says):
    path = write(tmp_path / "d.jsonl", {"problem": "p"} | row)
    [(key, message)] = problems(Math(path=str(path)))
    assert key == "answer"
    assert message.startswith(f"{path}:1: {says}")


def test_math_500_has_500_gold_answers_and_each_is_in_the_last_box(shared_data, tmp_path):
    path = shared_data / "math500" / "test.jsonl"
    given = Math(path=str(path)).build()
    assert len(given) == 500
    boxed = tmp_path / "boxed.jsonl"
    keep = ("problem", "solution", "unique_id")
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    write(boxed, *[{k: row[k] for k in keep} for row in rows])
    assert [e.answer for e in Math(path=str(boxed)).build()] == [e.answer for e in given]
