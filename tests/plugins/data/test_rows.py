"""Files to rows: every format, and every way a file can be broken, with its line."""

import bz2
import csv
import gzip
import io
import json
import lzma
from datetime import date
from decimal import Decimal
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit.data_files import parquet_rows
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
    assert [r.name for r in read_rows(path)] == ["a.json:2", "a.json:2.2", "a.json:5"]


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
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}')[:2] + b"not gzip at all")
    assert "cannot be read: Unknown compression method" in faults(tmp_path / "a.jsonl.gz")[0]
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


# ---------------------------------------------------------------- formats, told by content


def as_csv(delimiter):
    def dump(table):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(table[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(table)
        return text.getvalue().encode()

    return dump


def as_parquet(table):
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    sink = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(table), sink)
    return sink.getvalue()


FORMATS = {
    "lines": lambda table: "\n\n".join(map(json.dumps, table)).encode(),
    "lines, BOM": lambda table: b"\xef\xbb\xbf" + "\r\n".join(map(json.dumps, table)).encode(),
    "array on a line": lambda table: json.dumps(table).encode(),
    "array over lines": lambda table: json.dumps(table, indent=2).encode(),
    "objects over lines": lambda table: "\n".join(json.dumps(r, indent=1) for r in table).encode(),
    "comma": as_csv(","),
    "semicolon": as_csv(";"),
    "tab": as_csv("\t"),
    "parquet": as_parquet,
}
CELL = st.text(st.characters(codec="utf-8"), max_size=9)
NAMES = st.lists(st.text("abcdefgh_ ", min_size=1, max_size=5), min_size=2, max_size=4, unique=True)


@st.composite
def flat_tables(draw):
    names = draw(NAMES)
    return draw(st.lists(st.fixed_dictionaries(dict.fromkeys(names, CELL)), min_size=1, max_size=5))


@settings(max_examples=60)
@given(
    table=flat_tables(),
    name=st.sampled_from(["x.jsonl", "x.json", "x.csv", "x.parquet", "x.gz", "x"]),
    packed=st.booleans(),
)
@pytest.mark.parametrize("layout", FORMATS)
def test_the_same_rows_read_the_same_from_every_format(
    tmp_path_factory, layout, table, name, packed
):
    data = FORMATS[layout](table)
    path = tmp_path_factory.mktemp("t") / name
    path.write_bytes(gzip.compress(data) if packed else data)
    rows = list(read_rows(path))
    assert [row.values for row in rows] == table
    assert len({row.name for row in rows}) == len(table)
    assert len({row.where for row in rows}) == len(table)


@settings(max_examples=50)
@given(table=TABLES)
def test_nested_rows_read_the_same_on_one_line_and_over_many(tmp_path_factory, table):
    folder = tmp_path_factory.mktemp("t")
    for name in ("array on a line", "array over lines", "objects over lines"):
        path = folder / "x.jsonl"
        path.write_bytes(FORMATS[name](table))
        rows = list(read_rows(path))
        assert [row.values for row in rows if isinstance(row, Row)] == table
        assert len({row.name for row in rows}) == len(table)


def test_rows_of_tables_know_their_line(tmp_path):
    path = write(tmp_path / "a.csv", 'a,b\n\n1,"two\nlines"\n3,4\n5\n6,7\n')
    rows = list(read_rows(path))
    assert [row.where for row in rows] == [f"{path}:{n}" for n in (3, 5, 6, 7)]
    assert str(rows[2]) == f"{path}:6: 1 fields where the header names 2"
    assert rows[0].values == {"a": "1", "b": "two\nlines"}


def test_a_cell_may_be_longer_than_the_usual_limit_of_csv(tmp_path):
    before, long = csv.field_size_limit(), "x" * 200_000
    [row] = read_rows(write(tmp_path / "a.csv", f"a,b\n{long},2\n"))
    assert row.values["a"] == long
    assert csv.field_size_limit() == before


def test_a_table_of_one_column_needs_the_name_of_one(tmp_path):
    assert [r.values for r in read_rows(write(tmp_path / "a.csv", "a\n1\n"))] == [{"a": "1"}]
    assert "broken JSON" in faults(write(tmp_path / "a.txt", "a\n1\n"))[0]


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        (b'a,b\n1,"2\n', 2, "broken CSV: unexpected end of data"),
        (b"a,b\n1,\xe9\n", 2, "not UTF-8; save the file as UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), 1, "the file is UTF-16; save it as UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), 1, "the file is UTF-16; save it as UTF-8"),
        (b"PK\x03\x04abc", 1, "a zip archive; unpack it"),
        (bz2.compress(b'{"a": 1}'), 1, "compressed with bzip2; unpack it"),
        (lzma.compress(b'{"a": 1}'), 1, "compressed with xz; unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", 1, "a pointer of git LFS"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_what_is_no_file_of_rows_is_named(tmp_path, name, content, line, says):
    [fault] = faults(write(tmp_path / name, content))
    assert fault.startswith(f"{tmp_path / name}:{line}: {says}")


def test_a_header_names_no_column_twice(tmp_path):
    path = write(tmp_path / "a.csv", "a,b,a\n1,2,3\n")
    assert faults(path) == [f"{path}:1: the header names 'a' twice"]


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_rows, "find_spec", lambda name: None)
    [fault] = faults(write(tmp_path / "a", b"PAR1 and so on"))
    assert fault.endswith("a Parquet file, which needs the package pyarrow: pip install "
                          "'alignkit[parquet]'")  # fmt: skip


def test_a_broken_parquet_file_is_a_fault(tmp_path):
    data = as_parquet([{"a": 1}])
    [fault] = faults(write(tmp_path / "a.parquet", data[: len(data) // 2]))
    assert "the Parquet file cannot be read: " in fault


def test_rows_of_parquet_are_numbered_and_hold_what_json_would(tmp_path):
    rows = [{"a": Decimal("1.50"), "b": [date(2024, 1, 2)]}, {"a": None, "b": []}]
    found = list(read_rows(write(tmp_path / "a.parquet", as_parquet(rows))))
    assert [r.values for r in found] == [{"a": "1.50", "b": ["2024-01-02"]}, {"a": None, "b": []}]
    assert [(r.where, r.name) for r in found] == [
        (f"{tmp_path}/a.parquet, row {n}", f"a.parquet:{n}") for n in (1, 2)
    ]


def test_a_broken_first_line_leaves_the_others(tmp_path):
    found = list(read_rows(write(tmp_path / "a.jsonl", '{"a": 1\n{"a": 2}\n')))
    assert isinstance(found[0], Fault)
    assert found[1].values == {"a": 2}


@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
def test_the_first_column_may_have_no_name(tmp_path, delimiter):
    """pandas writes the index so."""
    lines = [["", "question", "answer"], ["0", "2+2?", "4"]]
    path = write(tmp_path / "a", "\n".join(map(delimiter.join, lines)))
    assert [r.values for r in read_rows(path)] == [{"": "0", "question": "2+2?", "answer": "4"}]


@pytest.mark.parametrize(
    "text", ["x" * 10**6, "x," * 99_999, '"' * 10**6, " " * 10**6, "\t" * 9999]
)
def test_long_lines_of_anything_are_one_fault(tmp_path, text):
    assert len(list(read_rows(write(tmp_path / "a.jsonl", text)))) <= 1
