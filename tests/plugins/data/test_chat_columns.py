"""Dialogues in the columns of a row, and the rows that are refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignkit import AlignkitError
from alignkit_data import Chat, Jsonl
from rows_of_chats import ASKED, DIALOGUE, MORE, SAID, TOLD

CALL = {"role": "assistant", "content": None, "tool_calls": [
    {"type": "function", "function": {"name": "times", "arguments": '{"a": 3, "b": 4}'}}
]}  # fmt: skip


def written(tmp_path, *rows):
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def examples(tmp_path, *rows, **keys):
    return Chat(path=str(written(tmp_path, *rows)), **keys).build()


def refusal(tmp_path, row, **keys):
    params = Chat(path=str(written(tmp_path, row)), **keys)
    [(key, message)] = params.check({})
    with pytest.raises(AlignkitError):
        params.build()
    return key, message


def test_sharegpt_is_read_as_messages(tmp_path):
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    stored = [{"from": names[m["role"]], "value": m["content"]} for m in DIALOGUE]
    [example] = examples(tmp_path, {"conversations": stored})
    assert example.messages == tuple(DIALOGUE)


def test_lists_of_roles_and_contents_are_messages(tmp_path):
    turned = {key: [m[key] for m in DIALOGUE] for key in ("role", "content")}
    [example] = examples(tmp_path, {"messages": turned})
    assert example.messages == tuple(DIALOGUE)


def test_parts_of_text_are_joined_and_absent_keys_dropped(tmp_path):
    parts = {**ASKED, "content": [{"type": "text", "text": "How "}, {"type": "text", "text": "?"}]}
    [example] = examples(tmp_path, {"messages": [parts, {**SAID, "tool_calls": None}]})
    assert example.messages == ({**ASKED, "content": "How ?"}, SAID)


def test_calls_of_tools_and_thoughts_stay_and_their_arguments_are_objects(tmp_path):
    tool = {"role": "tool", "content": "12", "name": "times"}
    think = {**SAID, "reasoning_content": "easy"}
    [example] = examples(tmp_path, {"messages": [ASKED, CALL, tool, think]})
    _, call, *rest = example.messages
    assert call["content"] == ""
    assert call["tool_calls"][0]["function"]["arguments"] == {"a": 3, "b": 4}
    assert rest == [tool, think]


def test_the_question_is_what_was_said_last(tmp_path):
    first, second, third = examples(
        tmp_path, *({"messages": m} for m in (DIALOGUE, [TOLD, ASKED, SAID], [ASKED, SAID]))
    )
    assert first.question == MORE["content"]
    assert second.question == f"Be brief.\n\n{ASKED['content']}"  # as `jsonl` has it
    assert third.question == ASKED["content"]


def test_a_gold_answer_has_a_column_of_its_own(tmp_path):
    row = {"prompt": [ASKED], "answer": ["12", "twelve"], "n": 1}
    [example] = examples(tmp_path, row)
    assert (example.answer, example.also_accepted) == ("12", ("twelve",))
    assert example.messages == (ASKED,)
    assert example.extra == {"n": 1}
    assert examples(tmp_path, {"prompt": [ASKED], "gold": 12}, answer="gold")[0].answer == "12"
    assert examples(tmp_path, {"prompt": [ASKED]}, answer="")[0].answer == ""


@pytest.mark.parametrize("prompt", [[ASKED], ASKED["content"]], ids=["messages", "text"])
@pytest.mark.parametrize("completion", [[SAID], "12"], ids=["messages", "text"])
def test_a_completion_goes_on_where_the_prompt_ends(tmp_path, prompt, completion):
    [example] = examples(tmp_path, {"prompt": prompt, "completion": completion})
    assert example.messages == (ASKED, SAID)
    assert (example.answer, example.extra) == ("12", {})


BAD = {"role": "assistant", "content": "13"}


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": [TOLD, ASKED, SAID], "rejected": [TOLD, ASKED, BAD]},
        {"prompt": [TOLD, ASKED], "chosen": [SAID], "rejected": [BAD]},
        {"prompt": [TOLD, ASKED], "chosen": "12", "rejected": "13"},
        {"prompt": [TOLD, ASKED], "chosen": [TOLD, ASKED, SAID], "rejected": [BAD]},
        {"messages": [TOLD, ASKED], "chosen": SAID, "rejected": BAD},
    ],
    ids=["dialogues", "answers", "texts", "mixed", "single messages"],
)
def test_pairs_share_what_they_answer(tmp_path, row):
    [example] = examples(tmp_path, row)
    assert example.messages == (TOLD, ASKED, SAID)
    assert (example.answer, example.extra) == ("12", {"chosen": "12", "rejected": "13"})


def test_an_answer_of_a_pair_that_holds_more_than_text_stays_a_message(tmp_path):
    row = {"chosen": [ASKED, SAID], "rejected": [ASKED, {**BAD, "reasoning_content": "eh"}]}
    [example] = examples(tmp_path, row)
    assert example.extra == {"chosen": "12", "rejected": {**BAD, "reasoning_content": "eh"}}


@pytest.mark.parametrize(
    ("row", "key", "says"),
    [
        ({"question": "1?", "answer": "1"}, "messages", ":1: no column with a dialogue (messages,"),
        ({"messages": []}, "messages", "column 'messages' holds an array where a dialogue belongs"),
        ({"messages": "[{"}, "messages", "holds a string where a dialogue belongs"),
        ({"messages": [ASKED, 3]}, "messages", "holds an array where a dialogue belongs"),
        ({"messages": [{"role": "cat", "content": "x"}]}, "messages", "unknown role 'cat'"),
        ({"messages": [{**ASKED, "content": 3}]}, "messages", "message 1: the user says a number"),
        ({"messages": [ASKED, {**SAID, "content": " "}]}, "messages", "message 2: the assistant"),
        ({"messages": [{"role": "user", "name": "x"}]}, "messages", "the user says nothing"),
        ({"messages": [{**ASKED, "content": "\ud83d"}]}, "messages", "half of a surrogate pair"),
        ({"messages": [ASKED, {**SAID, "tool_calls": 3}]}, "messages", "tool_calls is a number"),
        ({"messages": [ASKED, {**SAID, "tool_calls": "f"}]}, "messages", "tool_calls is a string"),
        ({"messages": [TOLD, SAID]}, "messages", "holds no message of the user"),
        ({"messages": [ASKED]}, "answer", 'if nothing needs an answer: answer = ""'),
        ({"chosen": [ASKED, SAID], "rejected": [MORE, BAD]}, "messages", "must be equal but for"),
        ({"chosen": [ASKED, SAID], "rejected": [ASKED, MORE]}, "messages", "must be equal but for"),
        ({"chosen": [SAID], "rejected": [BAD]}, "messages", "must be equal but for"),
    ],
    ids=["none", "empty", "half JSON", "no message", "role", "number", "blank", "nothing",
         "surrogate", "calls", "call",
         "no user", "no answer", "other prompt", "other end", "no prompt"],
)  # fmt: skip
def test_what_is_no_dialogue_is_refused_in_one_line(tmp_path, row, key, says):
    where, message = refusal(tmp_path, row)
    assert where == key
    assert says in message
    assert "\n" not in message


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["user", "gpt", "[", "x", ""]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["role", "from", "content", "value", "tool_calls", "function",
                                       "arguments", "text"]), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(row=st.dictionaries(
    st.sampled_from(["messages", "conversations", "prompt", "completion", "chosen", "rejected",
                     "answer"]), values, max_size=4))  # fmt: skip
def test_no_row_brings_down_the_reader(row):
    """Whatever stands in the columns is an example or a fault, never an error."""
    from alignkit.data_files.columns import BadRow
    from alignkit.data_files.records import Row
    from alignkit_data.chats import Dialogue

    try:
        example = Dialogue("", "answer")(Row("f:1", "f:1", row))
    except BadRow:
        return
    assert example.question.strip()
    assert all(isinstance(m["content"], str) and m["role"] for m in example.messages)


@given(value=values, key=st.sampled_from(["tool_calls", "tool_calls", "name", "value", "from"]))
def test_no_key_of_a_message_brings_down_the_reader(value, key):
    from alignkit.data_files.columns import BadRow
    from alignkit.data_files.records import Row
    from alignkit_data.chats import Dialogue

    row = Row("f:1", "f:1", {"messages": [ASKED, {**SAID, key: value}]})
    try:
        [*_, last] = Dialogue("", "")(row).messages
    except BadRow:
        return
    assert isinstance(last.get("tool_calls", []), list)


def test_rows_of_other_data_sets_hold_no_messages(tmp_path):
    path = written(tmp_path, {"messages": [TOLD, ASKED, SAID]})
    [example] = Jsonl(path=path, question="messages", answer="messages").build()
    assert example.messages == ()
