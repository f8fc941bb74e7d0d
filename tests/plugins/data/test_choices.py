"""Multiple choice made of other data, and rows without a gold."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignkit.errors import AlignkitError
from alignkit.protocols import Example
from alignkit_data import Jsonl
from alignkit_data.choices import Choices
from alignkit_rewards import MultipleChoice

ANSWERS = st.lists(st.integers(0, 30).map(str), min_size=4, max_size=20)


@given(ANSWERS, st.integers(0, 5))
def test_one_option_is_right_and_the_letter_names_it(answers, seed):
    data = [Example(f"i{n}", f"q{n}?", answer) for n, answer in enumerate(answers)]
    if len(set(answers)) < 4:
        with pytest.raises(AlignkitError, match="four are needed"):
            Choices(seed=seed).build(of=data)
        return
    made = Choices(seed=seed).build(of=data)
    assert made == Choices(seed=seed).build(of=data)
    for asked, example in zip(made, data, strict=True):
        choices = asked.extra["choices"]
        assert len(set(choices)) == 4
        assert set(choices) <= set(answers)
        assert choices["ABCD".index(asked.answer)] == example.answer
        assert all(f"\n{a}. {c}\n" in asked.question for a, c in zip("ABCD", choices, strict=True))
        said = [f"The correct answer is {letter}." for letter in "ABCD"]
        found = MultipleChoice().build()(said, [asked] * 4)
        assert [r.total for r in found] == [float(a == asked.answer) for a in "ABCD"]


def test_the_letters_are_spread_and_change_with_the_seed():
    data = [Example(f"i{n}", f"q{n}?", str(n)) for n in range(200)]
    first, other = (Choices(seed=seed).build(of=data) for seed in (0, 1))
    counts = [sum(e.answer == letter for e in first) for letter in "ABCD"]
    assert min(counts) > 30
    assert [e.answer for e in first] != [e.answer for e in other]
    assert len(Choices(limit=7).build(of=data)) == 7


def test_other_right_answers_are_no_options():
    data = [Example("a", "q?", "1", also_accepted=("2", "3"))]
    data += [Example(f"i{n}", "r?", str(n)) for n in range(2, 7)]
    assert not {"2", "3"} & {*Choices().build(of=data)[0].extra["choices"]}


def test_rows_without_a_gold_need_none(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"q": f"a{n}", "area": "x"}) + "\n" for n in range(2)))
    made = Jsonl(path=path, question="q", no_answer=True)
    assert list(made.check({})) == []
    assert [(e.question, e.answer, e.extra) for e in made.build()] == [
        ("a0", "", {"area": "x"}),
        ("a1", "", {"area": "x"}),
    ]
    assert list(Jsonl(path=path, question="q").check({})) != []
