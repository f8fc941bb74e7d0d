"""The components jsonl, gsm8k and math: rows to examples, and bad rows refused by line."""

import json
import re
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
from pydantic import ValidationError

from alignkit import AlignkitError
from alignkit.protocols import Orders
from alignkit_data import Gsm8k, Jsonl, Math, dataset, hub


def write(path, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def problems(params):
    """What is found before anything is built, after making sure build refuses it too."""
    found = list(params.check({}))
    with pytest.raises(AlignkitError) as error:
        params.build()
    assert str(error.value) == "\n".join(message for _, message in found)
    return found


def test_names_are_those_of_the_contract():
    names = ["jsonl", "gsm8k", "math", "hh", "mmlu", "chat", "choices"]
    assert [component.name for component in dataset()] == names


# ---------------------------------------------------------------- jsonl


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


# ---------------------------------------------------------------- gsm8k


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


# ---------------------------------------------------------------- math


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


# ---------------------------------------------------------------- the Hub


@pytest.fixture
def without_datasets(monkeypatch):
    """The package ``datasets`` is not installed, whatever this machine has."""
    real = hub.find_spec
    monkeypatch.setattr(hub, "find_spec", lambda n: None if n == "datasets" else real(n))


@pytest.fixture
def hub_cache(monkeypatch, tmp_path, without_datasets):
    """An empty Hub cache, offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def cached(cache, name, file, *rows):
    repo = cache / f"datasets--{name.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40)
    (repo / "snapshots" / ("0" * 40)).mkdir(parents=True)
    write(repo / "snapshots" / ("0" * 40) / file, *rows)


def test_the_hub_is_read_from_the_cache_when_offline(hub_cache):
    rows = [{"problem": "p", "answer": "4"}, {"problem": "p", "answer": "5"}]
    cached(hub_cache, "HuggingFaceH4/MATH-500", "test.jsonl", *rows)
    assert list(Math().check({})) == []
    assert list(Math().missing()) == []
    assert [(e.id, e.answer) for e in Math().build()] == [
        ("test.jsonl:1", "4"),
        ("test.jsonl:2", "5"),
    ]
    assert [e.answer for e in Math(limit=1).build()] == ["4"]
    assert Math(limit=1).facts({}) == {
        "rows": "test of HuggingFaceH4/MATH-500 on the Hub, at most 1"
    }


def test_a_data_set_that_is_not_in_the_cache_says_so(hub_cache):
    with pytest.raises(AlignkitError, match="HF_HUB_OFFLINE is set, so only the cache is read"):
        Math().build()


def test_a_data_set_in_another_format_says_what_to_install(hub_cache):
    cached(hub_cache, "openai/gsm8k", "train.parquet")
    with pytest.raises(AlignkitError, match=r"no train\.jsonl .* pip install datasets, or give"):
        Gsm8k().build()


def test_the_datasets_package_is_asked_for_configuration_and_split(monkeypatch):
    calls = []

    def load_dataset(name, config, *, split):
        calls.append((name, config, split))
        return [{"question": "q", "answer": "so\n#### 5"}, {"question": "q", "answer": "6"}]

    module = ModuleType("datasets")
    module.__spec__ = ModuleSpec("datasets", None)
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    [example] = Gsm8k(split="test", limit=1).build()
    assert (example.id, example.answer) == ("test/0", "5")
    assert calls == [("openai/gsm8k", "main", "test")]
    with pytest.raises(
        AlignkitError, match="openai/gsm8k test row 1: column 'answer' has no answer"
    ):
        Gsm8k(split="test").build()


def test_without_any_client_the_remedy_is_known_before_the_run(monkeypatch):
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    [message] = Gsm8k().missing()
    assert "'openai/gsm8k'" in message
    assert "pip install datasets" in message


@pytest.mark.parametrize("path", ["data/gsm8k.jsonl", "a/b/c", "./train", "train.json.gz"])
def test_a_name_that_can_only_be_a_path_is_a_missing_file(path):
    assert list(Gsm8k(path=path).check({})) == [("path", f"no such file or folder: {path}")]
