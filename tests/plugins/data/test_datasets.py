"""The components jsonl, gsm8k and math: rows to examples, and bad rows refused by line."""

import pytest
from pydantic import ValidationError

from alignkit.protocols import Orders
from alignkit_data import Jsonl, dataset
from rows_of_data import problems, write


def test_names_are_those_of_the_contract():
    names = ["jsonl", "gsm8k", "math", "hh", "mmlu", "chat", "choices"]
    assert [component.name for component in dataset()] == names


def test_jsonl_maps_columns_and_keeps_the_others(tmp_path):
    path = write(
        tmp_path / "d.jsonl",
        {"q": "2+2?", "a": " 4\n", "level": 1, "tags": ["x"]},
        {"q": "1/2?", "a": 0.5, "answer": None},
        {"q": 7, "a": 10**20},
    )
    params = Jsonl(path=path, question="q", answer="a")
    data = params.build()
    assert [(e.id, e.question, e.answer) for e in data] == [
        ("d.jsonl:1", "2+2?", " 4\n"),  # text stays as it is: a response to imitate may end so
        ("d.jsonl:2", "1/2?", "0.5"),
        ("d.jsonl:3", "7", "100000000000000000000"),
    ]
    assert [e.extra for e in data] == [{"level": 1, "tags": ["x"]}, {"answer": None}, {}]
    assert params.facts({}) == {"rows": "3"}


def test_jsonl_reads_prompt_and_response_for_supervised_fine_tuning(tmp_path):
    row = {"prompt": "2+2?", "response": "so 4 </think> <answer>4</answer>", "gold": "4"}
    path = write(tmp_path / "sft.jsonl", row)
    [example] = Jsonl(path=path, question="prompt", answer="response").build()
    assert (example.question, example.answer) == (row["prompt"], row["response"])
    assert example.extra == {"gold": "4"}


@pytest.mark.parametrize("order", ["shuffled", "given"])
def test_the_order_of_the_rows_is_kept_where_it_is_asked_for(tmp_path, order):
    rows = [{"question": f"q{i}", "answer": "1"} for i in range(5)]
    path = write(tmp_path / "rows.jsonl", *rows)
    data = Jsonl(path=path, order=order).build()
    assert [data[i].question for i in range(len(data))] == [f"q{i}" for i in range(5)]
    assert isinstance(data, Orders) is (order == "given")
    if order == "given":
        assert list(data.choose(4, step=3, position=3)) == [3, 4, 0, 1]


def test_limit_takes_the_first_rows_and_looks_no_further(tmp_path):
    rows = [{"question": str(n), "answer": str(n)} for n in range(3)]
    path = write(tmp_path / "d.jsonl", *rows, "{broken")
    params = Jsonl(path=path, limit=3)
    assert list(params.check({})) == []
    assert [e.answer for e in params.build()] == ["0", "1", "2"]
    assert len(problems(Jsonl(path=path, limit=4))) == 1


def test_ids_come_from_a_column_and_are_unique(tmp_path):
    rows = [{"question": "q", "answer": "a", "key": key} for key in (7, "x", "7")]
    path = write(tmp_path / "d.jsonl", *rows)
    assert [e.id for e in Jsonl(path=path, id="key", limit=2).build()] == ["7", "x"]
    assert problems(Jsonl(path=path, id="key")) == [
        ("id", f"{path}:3: the id '7' was used at {path}:1 before; ids must be unique")
    ]


@pytest.mark.parametrize(
    ("row", "key", "says"),
    [
        ({"question": "q"}, "answer", "no column 'answer'. Columns there: question; map another"),
        ({"answer": "a"}, "question", "no column 'question'. Columns there: answer; map another"),
        ({}, "question", "no column 'question'. Columns there: none; map another"),
        (
            {"question": "q", "anwser": "a"},
            "answer",
            "no column 'answer'. Did you mean 'anwser'? Columns there: question, anwser; "
            'map another column with answer = "…"',
        ),
        (
            {"question": "q", "answer": ""},
            "answer",
            "column 'answer' is empty; fill it, drop the row, or map another column with "
            'answer = "…"',
        ),
        ({"question": "q", "answer": " \n"}, "answer", "column 'answer' is empty; fill it"),
        ({"question": "", "answer": "a"}, "question", "column 'question' is empty; fill it"),
        (
            {"question": "q", "answer": None},
            "answer",
            "column 'answer' holds null where text or a number belongs; map another column with "
            'answer = "…"',
        ),
        ({"question": "q", "answer": []}, "answer", "column 'answer' holds an array where"),
        ({"question": ["q"], "answer": "4"}, "question", "column 'question' holds an array where"),
        ({"question": "q", "answer": {"x": 1}}, "answer", "column 'answer' holds an object where"),
        ({"question": "q", "answer": True}, "answer", "column 'answer' holds true or false where"),
        ({"question": "\ud83d", "answer": "a"}, "question", "column 'question' holds half of a"),
        ("[1]", "path", "an array where a row must be an object"),
        ('{"question": "q"', "path", "broken JSON: Expecting ',' delimiter (column 17)"),
    ],
)
def test_a_bad_row_is_named_by_file_line_column_and_remedy(tmp_path, row, key, says):
    path = write(tmp_path / "d.jsonl", {"question": "q", "answer": "a"}, "", row)
    [(at, message)] = problems(Jsonl(path=path))
    assert at == key
    assert message.startswith(f"{path}:3: {says}")


def test_many_bad_rows_are_counted_after_the_first_five(tmp_path):
    good = {"question": "q", "answer": "a"}
    path = write(tmp_path / "d.jsonl", good, *[{"question": "q", "answer": ""}] * 1007, good)
    found = problems(Jsonl(path=path))
    assert [m.partition(": column")[0] for _, m in found[:5]] == [
        f"{path}:{n}" for n in range(2, 7)
    ]
    assert found[5:] == [("path", "and 1,002 more bad rows")]


def test_a_column_that_no_row_has_is_one_problem(tmp_path):
    path = write(tmp_path / "d.jsonl", *[{"question": "q", "gold": "4"}] * 9)
    assert problems(Jsonl(path=path)) == [
        (
            "answer",
            f"{path}:1: no column 'answer'. Columns there: question, gold; "
            'map another column with answer = "…" (the same in all 9 rows)',
        )
    ]


def test_an_empty_file_and_a_folder_are_refused(tmp_path):
    path = write(tmp_path / "d.jsonl", "", " ")
    assert problems(Jsonl(path=path)) == [("path", f"{path}: holds no rows")]
    assert problems(Jsonl(path=tmp_path)) == [
        ("path", f"{tmp_path}: is a folder; name one of its files: d.jsonl")
    ]


def test_a_file_that_changed_is_read_again(tmp_path):
    path = write(tmp_path / "d.jsonl", {"question": "q", "answer": ""})
    params = Jsonl(path=path)
    assert len(problems(params)) == 1
    write(path, {"question": "q", "answer": "mended"})
    assert list(params.check({})) == []
    assert params.build()[0].answer == "mended"


@pytest.mark.parametrize("bad", [{"limit": 0}, {"answer": ""}, {"anwser": "a"}])
def test_wrong_values_are_refused_by_the_schema(tmp_path, bad):
    with pytest.raises(ValidationError):
        Jsonl(path=tmp_path, **bad)
