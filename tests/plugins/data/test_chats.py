"""Rows with dialogues, in every form and file that people keep them in."""

import csv
import gzip
import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignkit import AlignkitError
from alignkit_data import Chat, Jsonl

TOLD = {"role": "system", "content": "Be brief."}
ASKED = {"role": "user", "content": "How many legs have 3 cats?"}
SAID = {"role": "assistant", "content": "12"}
MORE = {"role": "user", "content": "And 4?"}
THEN = {"role": "assistant", "content": "16"}
CALL = {"role": "assistant", "content": None, "tool_calls": [
    {"type": "function", "function": {"name": "times", "arguments": '{"a": 3, "b": 4}'}}
]}  # fmt: skip
DIALOGUE = [TOLD, ASKED, SAID, MORE, THEN]


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


# ---------------------------------------------------------------- files


def _csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["messages", "level"])
        table.writeheader()
        table.writerows({**row, "messages": json.dumps(row["messages"])} for row in rows)


def _parquet(path, rows):
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    parquet.write_table(arrow.Table.from_pylist(rows), path)


def _saved(folder, rows):
    """What `save_to_disk` of `datasets` leaves: Arrow streams, and their names in order."""
    arrow = pytest.importorskip("pyarrow")
    folder.mkdir()
    names = []
    for number, row in enumerate(rows):
        table = arrow.Table.from_pylist([row])
        names.append(f"data-{number:05}-of-{len(rows):05}.arrow")
        with arrow.ipc.new_stream(folder / names[-1], table.schema) as stream:
            stream.write_table(table)
    state = {"_data_files": [{"filename": name} for name in names], "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state))


def _saved_splits(folder, rows):
    folder.mkdir()
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    _saved(folder / "train", rows)


WRITERS = {
    "jsonl": lambda path, rows: path.write_text("\n".join(map(json.dumps, rows))),
    "json array": lambda path, rows: path.write_text(json.dumps(rows, indent=1)),
    "gzip": lambda path, rows: path.write_bytes(gzip.compress(json.dumps(rows).encode())),
    "csv": _csv,
    "parquet": _parquet,
    "saved": _saved,
    "saved splits": _saved_splits,
}


@pytest.mark.parametrize("form", WRITERS)
def test_dialogues_are_read_from_every_kind_of_file(tmp_path, form):
    rows = [{"messages": DIALOGUE, "level": "1"}, {"messages": [ASKED, SAID], "level": "2"}]
    path = tmp_path / "rows"
    WRITERS[form](path, rows)
    first, second = Chat(path=str(path)).build()
    assert first.messages == tuple(DIALOGUE)
    assert second.messages == (ASKED, SAID)
    assert (first.answer, second.answer) == ("16", "12")
    assert (first.extra, second.extra) == ({"level": "1"}, {"level": "2"})
    assert first.id != second.id
    assert Chat(path=str(path)).facts({})["turns of the assistant"] == "3"


def test_a_saved_folder_keeps_the_order_of_its_rows(tmp_path):
    _saved(tmp_path / "d", [{"messages": [ASKED, {**SAID, "content": str(n)}]} for n in range(11)])
    assert [e.answer for e in Chat(path=str(tmp_path / "d")).build()] == [*map(str, range(11))]


def test_a_saved_folder_whose_list_is_broken_is_named(tmp_path):
    (tmp_path / "state.json").write_text('{"_data_files": 3}')
    with pytest.raises(AlignkitError, match=r"state\.json: not what `datasets` saves"):
        Chat(path=str(tmp_path)).build()


def test_arrow_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    from alignkit.data_files import parquet_rows

    path = tmp_path / "d.arrow"
    path.write_bytes(parquet_rows.STREAM + b"rest")
    monkeypatch.setattr(parquet_rows, "find_spec", lambda name: None)
    [(_, message)] = Chat(path=str(path)).check({})
    assert message.endswith("an Arrow file, which needs the package pyarrow: pip install "
                            "'alignkit[parquet]'")  # fmt: skip


def test_a_broken_arrow_stream_is_a_fault_with_its_row(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "d.arrow"
    path.write_bytes(b"\xff\xff\xff\xff" + b"\x10\0\0\0" + b"nothing")
    [(_, message)] = Chat(path=str(path)).check({})
    assert "d.arrow:1: the Arrow file cannot be read" in message


def test_dialogues_come_from_the_hub(monkeypatch):
    module = ModuleType("datasets")
    module.__spec__ = ModuleSpec("datasets", None)
    module.load_dataset = lambda name, config, split: [{"conversations": DIALOGUE}]
    monkeypatch.setitem(sys.modules, "datasets", module)
    [example] = Chat(path="somebody/chats", split="test").build()
    assert (example.messages, example.id) == (tuple(DIALOGUE), "test/0")


# ---------------------------------------------------------------- columns


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
        ({"messages": [TOLD, SAID]}, "messages", "holds no message of the user"),
        ({"messages": [ASKED]}, "answer", 'if nothing needs an answer: answer = ""'),
        ({"chosen": [ASKED, SAID], "rejected": [MORE, BAD]}, "messages", "must be equal but for"),
        ({"chosen": [ASKED, SAID], "rejected": [ASKED, MORE]}, "messages", "must be equal but for"),
        ({"chosen": [SAID], "rejected": [BAD]}, "messages", "must be equal but for"),
    ],
    ids=["none", "empty", "half JSON", "no message", "role", "number", "blank", "nothing",
         "surrogate", "no user", "no answer", "other prompt", "other end", "no prompt"],
)  # fmt: skip
def test_what_is_no_dialogue_is_refused_in_one_line(tmp_path, row, key, says):
    where, message = refusal(tmp_path, row)
    assert where == key
    assert says in message
    assert "\n" not in message


texts = st.text(min_size=1, max_size=5).filter(str.strip)
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


def test_rows_of_other_data_sets_hold_no_messages(tmp_path):
    path = written(tmp_path, {"messages": [TOLD, ASKED, SAID]})
    [example] = Jsonl(path=path, question="messages", answer="messages").build()
    assert example.messages == ()
