"""MMLU as published files hold it, and what is read out of responses to it."""

import json

import pytest

from alignkit.engine.evaluation.statistics import accuracy_by
from alignkit.errors import AlignkitError
from alignkit.protocols import Example, Reward
from alignkit_data.mmlu import Mmlu
from alignkit_rewards import LastNumber, MultipleChoice

ROW = {"question": "Snow is", "choices": ["hot", "white", "dry", "old"], "answer": "B"}


def test_the_folder_of_csv_files_without_header(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test/high_school_tea_test.csv").write_text('"Is it, hot?",no,yes,"a, b",old,B\n')
    (tmp_path / "test/art_test.csv").write_text("x?,1,2,3,4,D\ny?,1,2,3,4,A\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/art_dev.csv").write_text("z?,1,2,3,4,A\n")
    *_, tea = data = Mmlu(path=tmp_path).build()
    assert [e.id for e in data] == [
        "art_test.csv:1",
        "art_test.csv:2",
        "high_school_tea_test.csv:1",
    ]
    assert tea.extra == {"choices": ["no", "yes", "a, b", "old"], "subject": "high_school_tea"}
    assert tea.answer == "B"
    assert "about high school tea." in tea.question
    assert tea.question.endswith("Question: Is it, hot?\nA. no\nB. yes\nC. a, b\nD. old\nAnswer:")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choices": ["a", "b"]}, "must hold four texts"),
        ({"choices": "abcd"}, "must hold four texts"),
        ({"answer": "E"}, "must hold A, B, C, D or 0 to 3, got 'E'"),
        ({"answer": 4}, "must hold A, B, C, D or 0 to 3, got '4'"),
        ({"subject": ""}, "subject"),
    ],
    ids=["two options", "a text", "E", "4", "no subject"],
)
def test_a_row_that_is_none_is_refused(tmp_path, change, message):
    (tmp_path / "d.jsonl").write_text(json.dumps({**ROW, "subject": "snow", **change}))
    with pytest.raises(AlignkitError, match=message):
        Mmlu(path=tmp_path / "d.jsonl").build()


def test_a_csv_row_of_other_length_is_refused_with_its_line(tmp_path):
    (tmp_path / "art_test.csv").write_text("x?,1,2,3,4,D\ny?,1,2,3\n")
    with pytest.raises(AlignkitError, match=r"art_test.csv:2: 4 fields"):
        Mmlu(path=tmp_path).build()


def test_a_letter_a_wording_and_nothing():
    example = Example("0", "Snow is", "B", {"choices": ROW["choices"]})
    said = ["The correct answer is B.", "White", "The correct answer is C", "I do not know."]
    found = MultipleChoice().build()(said, [example] * 4)
    assert [r.total for r in found] == [1, 1, 0, 0]
    assert [r.parts["unparsed"] for r in found] == [0, 0, 0, 1]


def test_the_last_number_counts():
    gold = Example("0", "q", "1200")
    reward = LastNumber().build()
    found = reward(["12 boxes of 100 make 1,200.", "1200 less 1 is 1199", "none"], [gold] * 3)
    assert [r.total for r in found] == [1, 0, 0]


def test_accuracy_by_subject():
    class Judged:
        def __init__(self, subject, right):
            self.example = Example("0", "q", "a", {"subject": subject})
            self.reward = Reward(right)

    found = accuracy_by("subject", [Judged("a", 1.0), Judged("b/c", 0.0), Judged("a", 0.0)])
    assert found == {"answer_reward/a": 0.5, "answer_reward/b-c": 0.0}
    with pytest.raises(AlignkitError, match="no column 'topic'; columns: subject"):
        accuracy_by("topic", [Judged("a", 1.0)])


@pytest.mark.parametrize(("name", "rows"), [("dev", 285), ("test_25_per_subject", 1425)])
def test_the_real_rows(shared_data, name, rows):
    subject = Mmlu(path=shared_data / "mmlu" / f"{name}.jsonl")
    data = subject.build()
    assert subject.facts({})["rows"] == f"{rows:,} of 57 subjects"
    right = [f"The correct answer is {e.answer}." for e in data]
    assert sum(r.total for r in MultipleChoice().build()(right, data)) == rows


def test_gsm8k_solutions_end_in_their_gold(shared_data):
    from alignkit_data import Gsm8k

    data = Gsm8k(path=str(shared_data / "gsm8k"), split="test").build()
    said = [f"{e.extra['solution']} So it is {e.answer}." for e in data]
    assert sum(r.total for r in LastNumber().build()(said, data)) == 1319


def test_a_name_on_the_hub_is_read_there():
    made = Mmlu(config="anatomy", limit=3)
    assert list(made.check({})) == []
    assert made.facts({}) == {"rows": "test of cais/mmlu on the Hub, at most 3"}
    assert list(Mmlu(path="no/such/folder").check({})) == [
        ("path", "no such file or folder: no/such/folder")
    ]
