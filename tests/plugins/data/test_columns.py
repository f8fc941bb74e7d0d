"""Columns as people have them: nested, lists, chats, Alpaca's input, NaN, halves of pairs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignkit import AlignkitError
from alignkit.data_files.columns import MISSING, value_of
from alignkit_data import Jsonl
from alignkit_prompts import AlpacaSft

ASKED = {"role": "user", "content": "How many legs have 3 cats?"}
TOLD = {"role": "system", "content": "Be brief."}
SAID = {"role": "assistant", "content": "12"}


def examples(tmp_path, *rows, **keys):
    path = tmp_path / "d.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return Jsonl(path=path, **keys).build()


def refusal(tmp_path, *rows, **keys):
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    params = Jsonl(path=path, **keys)
    found = list(params.check({}))
    with pytest.raises(AlignkitError):
        params.build()
    assert len(found) == 1
    return found[0][1].removeprefix(str(path))


# ---------------------------------------------------------------- numbers that are none


@pytest.mark.parametrize(
    ("value", "named"), [("NaN", "NaN"), ("-Infinity", "an infinite number"), ("1e999", "an inf")]
)
def test_numbers_that_are_none_matter_only_in_columns_that_are_used(tmp_path, value, named):
    path = tmp_path / "d.jsonl"
    path.write_text(f'{{"question": "q", "answer": "a", "score": {value}, "n": [{value}]}}\n')
    assert len(Jsonl(path=path).build()) == 1
    for key in ("answer", "question", "id"):
        problems = list(Jsonl(path=path, **{key: "score"}).check({}))
        assert [at for at, _ in problems] == [key]
        assert problems[0][1].startswith(f"{path}:1: column 'score' holds {named}")
    [(_, message)] = Jsonl(path=path, answer="n").check({})
    assert message.startswith(f"{path}:1: column 'n' holds an array with {named}")


# ---------------------------------------------------------------- nested columns and lists


def test_dots_lead_into_objects(tmp_path):
    row = {"prompt": [ASKED], "reward_model": {"ground_truth": "12", "style": "rule"}, "a.b": "x"}
    keys = {"question": "prompt", "answer": "reward_model.ground_truth"}
    [example] = examples(tmp_path, row, **keys)
    assert (example.question, example.answer) == (ASKED["content"], "12")
    assert example.extra["reward_model"] == row["reward_model"]
    [example] = examples(tmp_path, {"question": "q", "a.b": "x", "a": {"b": "y"}}, answer="a.b")
    assert example.answer == "x"  # a column of that very name comes first


def test_a_nested_column_that_is_not_there_is_named(tmp_path):
    row = {"question": "q", "extra_info": {"split": "train"}}
    message = refusal(tmp_path, row, answer="extra_info.answer")
    assert message.startswith(":1: no column 'extra_info.answer'")


@given(st.lists(st.text("ab.", min_size=1, max_size=3), min_size=1, max_size=4))
def test_any_path_of_names_is_found(names):
    inner = "gold"
    for name in reversed(names):
        inner = {name: inner}
    found = value_of(inner, ".".join(names))
    assert found is not MISSING


def test_a_list_holds_answers_any_of_which_is_right(tmp_path):
    [example] = examples(tmp_path, {"question": "q", "answer": ["1/2", 0.5, "50 %"]})
    assert (example.answer, example.also_accepted) == ("1/2", ("0.5", "50 %"))


@pytest.mark.parametrize("bad", [None, "", {"a": 1}, ["4"], True])
def test_each_answer_of_a_list_is_looked_at(tmp_path, bad):
    message = refusal(tmp_path, {"question": "q", "answer": ["4", bad]})
    assert message.startswith(":1: column 'answer' ")


def test_the_reward_takes_any_answer_of_a_list(tmp_path):
    from alignkit_rewards import R1Zero

    [example] = examples(tmp_path, {"question": "q", "answer": ["paris", "7"]})
    said = [f"t </think> <answer> {text} </answer>" for text in ("7", "paris", "8")]
    assert [r.total for r in R1Zero().build()(said, [example] * 3)] == [1.0, 1.0, 0.0]


def test_several_answers_are_nothing_to_imitate(tmp_path):
    from alignkit.engine.learning.supervised import column

    [example] = examples(tmp_path, {"question": "q", "answer": ["1", "2"], "said": "1"})
    assert column(example, "said") == "1"
    with pytest.raises(AlignkitError, match=r"holds 2 answers.*one to imitate"):
        column(example, "")


def test_halves_of_surrogate_pairs_are_nothing_to_imitate(tmp_path):
    from alignkit.engine.learning.supervised import column

    [example] = examples(tmp_path, {"question": "q", "answer": "1", "said": "\ud83d"})
    with pytest.raises(AlignkitError, match="'said' holds half of a surrogate pair"):
        column(example, "said")


# ---------------------------------------------------------------- chats


@pytest.mark.parametrize("form", ["role", "from", "parts"])
def test_a_chat_of_one_turn_gives_question_and_answer(tmp_path, form):
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    as_form = {
        "role": lambda m: m,
        "from": lambda m: {"from": names[m["role"]], "value": m["content"]},
        "parts": lambda m: m | {"content": [{"type": "text", "text": m["content"]}]},
    }[form]
    keys = {"question": "messages", "answer": "messages"}
    rows = [{"messages": [*map(as_form, chat)]} for chat in ([ASKED, SAID], [TOLD, ASKED, SAID])]
    first, second = examples(tmp_path, *rows, **keys)
    assert (first.question, first.answer) == (ASKED["content"], "12")
    assert (second.question, second.answer) == (f"Be brief.\n\n{ASKED['content']}", "12")
    assert not first.extra


@pytest.mark.parametrize(
    ("chat", "says"),
    [
        ([ASKED, SAID, ASKED, SAID], "holds a chat of 2 turns; only one turn is read"),
        ([SAID, ASKED], "holds a chat in the order assistant, user; only one turn is read"),
        ([TOLD], "holds a chat in the order system; only one turn is read"),
        ([{"role": "tool", "content": "x"}, ASKED], "holds a chat with the role 'tool'"),
        ([{"role": "user", "content": None}], "holds a chat whose user says null where text"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            "holds a chat whose user says an array where text",
        ),
    ],
)
def test_other_chats_are_refused_in_one_line(tmp_path, chat, says):
    message = refusal(tmp_path, {"messages": chat, "answer": "1"}, question="messages")
    assert message.startswith(f":1: column 'messages' {says}")
    assert "\n" not in message


def test_a_chat_without_an_answer_has_none_to_imitate(tmp_path):
    message = refusal(tmp_path, {"m": [ASKED]}, question="m", answer="m")
    assert message.startswith(":1: column 'm' holds a chat without an answer at its end")


def test_a_chat_beside_a_missing_column_is_pointed_at(tmp_path):
    message = refusal(tmp_path, {"messages": [ASKED, SAID]})
    assert 'question = "messages" reads the chat' in message


# ---------------------------------------------------------------- Alpaca

ALPACA = {"instruction": "Double the number", "input": "21", "output": "42"}
KEYS = {"question": "instruction", "answer": "output"}


def test_the_input_of_alpaca_enters_the_prompt(tmp_path):
    other = {**ALPACA, "input": "4", "output": "8"}
    without = {**ALPACA, "input": "", "instruction": "Name a prime"}
    first, second, third = examples(tmp_path, ALPACA, other, without, **KEYS)
    assert first.question != second.question
    assert "input" not in first.extra
    template = AlpacaSft().build()
    assert template.render(first.question) == (
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nDouble the number\n\n### Input:\n21\n\n### Response:"
    )
    assert template.render(third.question) == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nName a prime\n\n### Response:"
    )


def test_the_input_may_be_left_out_or_stand_elsewhere(tmp_path):
    [example] = examples(tmp_path, ALPACA, **KEYS, input="")
    assert (example.question, example.extra) == ("Double the number", {"input": "21"})
    row = {"question": "q", "answer": "a", "passage": 3}
    assert examples(tmp_path, row, input="passage")[0].question == "q\n\n### Input:\n3"
    assert examples(tmp_path, {**row, "input": "x"})[0].question == "q"
    assert examples(tmp_path, row, question="passage", answer="question")[0].question == "3"


def test_the_plan_says_that_the_input_follows(tmp_path):
    path = tmp_path / "d.json"
    path.write_text(json.dumps([ALPACA, {**ALPACA, "input": ""}]))
    assert Jsonl(path=path, **KEYS).facts({}) == {
        "rows": "2",
        "input": "column 'input' follows the question in 1 rows",
    }
    assert Jsonl(path=path, **KEYS, input="").facts({}) == {"rows": "2"}


def test_an_input_that_is_no_text_is_refused(tmp_path):
    message = refusal(tmp_path, {**ALPACA, "input": {"a": 1}}, **KEYS)
    assert message.startswith(":1: column 'input' holds an object where text or a number belongs")


def test_an_array_on_one_line_gives_rows_of_different_ids(tmp_path):
    rows = [{"question": f"{n}?", "answer": n} for n in range(3)]
    assert [e.id for e in examples(tmp_path, *rows)] == ["d.json:1", "d.json:1.2", "d.json:1.3"]
    path = tmp_path / "d.json"
    path.write_text(json.dumps([*rows, {"question": "3?", "answer": None}]))
    [(_, message)] = Jsonl(path=path).check({})
    assert message.startswith(f"{path}:1, item 4: column 'answer' holds null")
