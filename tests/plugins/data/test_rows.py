"""Files to rows: every format, and every way a file can be broken, with its line."""

import gzip
import json
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit_data.rows import Fault, Row, files_in, read_rows

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
TABLES = st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=3), min_size=1, max_size=5)
LAYOUTS = [
    ("x.jsonl", lambda table: "\n".join(json.dumps(r, ensure_ascii=False) for r in table)),
    ("x.json", partial(json.dumps, indent=2)),
    ("x.json", json.dumps),
    ("x.json", lambda table: "\n".join(map(json.dumps, table)) + "\n"),
]


def write(path, content):
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def faults(path):
    return [str(row) for row in read_rows(path) if isinstance(row, Fault)]


@settings(max_examples=50)
@given(table=TABLES, layout=st.sampled_from(LAYOUTS), suffix=st.sampled_from(["", ".gz"]))
def test_every_layout_of_a_table_gives_the_same_rows(tmp_path_factory, table, layout, suffix):
    name, dump = layout
    path = write(tmp_path_factory.mktemp("t") / f"{name}{suffix}", dump(table))
    rows = list(read_rows(path))
    assert [row.values for row in rows if isinstance(row, Row)] == table
    assert len(rows) == len(table)


def test_rows_know_their_line_whatever_stands_between_them(tmp_path):
    path = write(tmp_path / "a.jsonl", '\n{"a": 1}\r\n\n  \n{"a": "\u2028 \\n"}\n')
    # lines 2 and 5; str.splitlines would also break the last row at U+2028
    assert [(r.where, r.name, r.values["a"]) for r in read_rows(path)] == [
        (f"{path}:2", "a.jsonl:2", 1),
        (f"{path}:5", "a.jsonl:5", "\u2028 \n"),
    ]


def test_items_of_an_array_know_the_line_they_begin_on(tmp_path):
    text = '\n[ {"a": 1}, {"a":\n 2},\n\n{"a": "x\\ny"}\n]\n'
    path = write(tmp_path / "a.json", text)
    assert [r.name for r in read_rows(path)] == ["a.json:2", "a.json:2", "a.json:5"]


def test_one_object_over_many_lines_is_one_row(tmp_path):
    path = write(tmp_path / "1.json", json.dumps({"problem": "2+2", "level": "1"}, indent=4))
    assert [r.values for r in read_rows(path)] == [{"problem": "2+2", "level": "1"}]


def test_a_byte_order_mark_is_not_part_of_the_first_row(tmp_path):
    path = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"a": 1}\n')
    assert [r.values for r in read_rows(path)] == [{"a": 1}]


@pytest.mark.parametrize(
    ("name", "content", "where", "says"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": 1\n', 2, "broken JSON: Expecting ',' delimiter (column 8)"),
        ("a.jsonl", '{"a": 1}\n[1]\n', 2, "an array where a row must be an object"),
        ("a.jsonl", '{"a": 1}\n"b"\n', 2, "a string where a row must be an object"),
        ("a.jsonl", '{"a": 1}\nnull\n', 2, "null where a row must be an object"),
        ("a.jsonl", '{"a": 1}\ntrue\n', 2, "true or false where a row must be an object"),
        ("a.jsonl", '{"a": 1}\n3\n', 2, "a number where a row must be an object"),
        ("a.jsonl", '{"a": NaN}\n', 1, "broken JSON: NaN is not JSON"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xe9"}\n', 2, "not UTF-8; save the file as UTF-8"),
        ("a.jsonl", "[" * 100_000, 1, "broken JSON: "),
        ("a.jsonl", '{"a":' * 100_000, 1, "broken JSON: "),
        ("a.jsonl", '{"a": 1}'.encode("utf-16"), 1, "the file is UTF-16; save it as UTF-8"),
        ("a.json", '[\n{"a": 1},\n{"a" 1}\n]', 3, "broken JSON: Expecting ':' delimiter"),
        ("a.json", '[\n{"a": 1}\n{"a": 1}\n]', 3, "broken JSON: expected a comma, or ]"),
        ("a.json", '[\n{"a": 1},\n{"a": 2}\n', 4, "broken JSON: expected a comma, or ]"),
        ("a.json", '[\n{"a": 1}]\nx', 2, "broken JSON: expected a comma, or ] and the end"),
        ("a.json", b'[\n{"a": 1},\n{"a": "\xe9"}]', 3, "not UTF-8; save the file as UTF-8"),
        ("a.json", '{\n"a": 1,\n"b" 2}\n', 3, "broken JSON: Expecting ':' delimiter"),
    ],
)
def test_what_cannot_be_read_is_named_by_file_and_line(tmp_path, name, content, where, says):
    path = write(tmp_path / name, content)
    [fault] = faults(path)
    assert fault.startswith(f"{path}:{where}: {says}")


def test_rows_after_a_broken_line_are_still_read(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"a": 1}\n{oops\n{"a": 3}\n{oops\n')
    rows = list(read_rows(path))
    assert [r.values["a"] for r in rows if isinstance(r, Row)] == [1, 3]
    assert [f.where for f in rows if isinstance(f, Fault)] == [f"{path}:2", f"{path}:4"]


def test_files_that_are_not_there_or_not_gzip_are_faults(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(b'{"a": 1}')
    assert "Not a gzipped file" in faults(tmp_path / "a.jsonl.gz")[0]
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}' * 99)[:30])
    assert "end-of-stream" in faults(tmp_path / "b.jsonl.gz")[0]
    assert "No such file" in faults(tmp_path / "c.jsonl")[0]


def test_a_folder_stands_for_the_files_of_a_split(tmp_path):
    for name in ("train/b/10.json", "train/a/2.json", "train/a/notes.txt", "test.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    below = [p.relative_to(tmp_path).as_posix() for p in files_in(tmp_path, "train")]
    assert below == ["train/a/2.json", "train/b/10.json"]
    assert files_in(tmp_path, "test") == (tmp_path / "test.jsonl",)
    assert files_in(tmp_path, "validation") == ()
