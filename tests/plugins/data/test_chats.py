"""Rows with dialogues, in every form and file that people keep them in."""

import csv
import gzip
import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
from hypothesis import strategies as st

from alignkit import AlignkitError
from alignkit_data import Chat
from rows_of_chats import ASKED, DIALOGUE, SAID


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


texts = st.text(min_size=1, max_size=5).filter(str.strip)
