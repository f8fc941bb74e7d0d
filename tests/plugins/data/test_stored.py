"""Large files of other formats: rows are kept on disk, and are those of the file read whole."""

import csv
import gzip
import io
import json
import random
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignkit_data import Gsm8k, Jsonl, indexed, load

FIELD = st.sampled_from(["one?", "é", "1,5", 'a "b"', "x\ny", "r.csv:2", " ", "#### 7", ""])
ROWS = st.lists(st.lists(FIELD, min_size=2, max_size=2), max_size=5)
DAMAGE = st.sampled_from(["", "", "", "cut", "latin", "field", "header", "quote", "zero"])


def table(rows, delimiter=",", end="\r\n"):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    return text.getvalue().encode()


def lines(rows):
    names = ("question", "answer")
    return b"\n".join(json.dumps(dict(zip(names, row, strict=True))).encode() for row in rows)


def damaged(data, how):
    return {
        "latin": data + b"\n\xe9,1\n",
        "field": data + b"a,b,c\n",
        "quote": data + b'"a" b,c\n',
        "zero": b"\x00" + data,
        "header": data.replace(b"answer", b"question"),
    }.get(how, data)


@pytest.fixture
def compare(monkeypatch, found):
    """Return a function that reads a file whole and from the disk; whether the second was so."""

    def both(make):
        answers, kinds = [], []
        for least in (2**40, 0):
            monkeypatch.setattr(indexed, "STORED_FROM", least)
            load._load_files.cache_clear()
            answers.append(found(make()))
            kinds.append(type(load_of(make())))
        assert repr(answers[0]) == repr(answers[1])
        return kinds[1] is indexed.Indexed

    return both


def load_of(make):
    return make._load().examples if isinstance(make, Jsonl) else make._source().load().examples


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=ROWS,
    form=st.sampled_from([lines, table, lambda r: table(r, "\t", "\n"), lambda r: table(r, ";")]),
    begin=st.sampled_from([b"", b"\xef\xbb\xbf", b"\n"]),
    packed=st.booleans(),
    damage=DAMAGE,
    keys=st.fixed_dictionaries({}, optional={"limit": st.integers(1, 3), "skip": st.just(1)}),
    most=st.sampled_from([2.0, 60 / 2**30]),
)
def test_rows_kept_on_disk_are_those_of_the_whole_file(
    tmp_path, compare, rows, form, begin, packed, damage, keys, most
):
    head = [] if form is lines else [["question", "answer"]]
    data = begin + damaged(form(head + rows), damage)
    if packed:
        data = gzip.compress(data)
        data = data[:-6] if damage == "cut" else data
    path = tmp_path / "r.csv"
    path.write_bytes(data)
    compare(lambda: Jsonl(path=path, max_unpacked_gib=most, **keys))


GOOD = [{"question": f"{i}?", "answer": f"#### {i}", "n": [i, None, 0.5]} for i in range(3_000)]


def written(folder, form):
    pa = pytest.importorskip("pyarrow") if form in ("parquet", "arrow", "two") else None
    parts = {"two": (GOOD[:10], GOOD[10:])}.get(form, (GOOD,))
    folder.mkdir()
    for number, rows in enumerate(parts):
        path = folder / f"train{number}"
        if form in ("parquet", "two"):
            from pyarrow import parquet

            path = path.with_suffix(".parquet")
            parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=700)
        elif form == "arrow":
            whole = pa.Table.from_pylist(rows)
            with pa.ipc.new_stream(path.with_suffix(".parquet"), whole.schema) as writer:
                writer.write_table(whole, 500)
        else:
            texts = [[row["question"], row["answer"]] for row in rows]
            data = table([["question", "answer"], *texts]) if "csv" in form else lines(texts)
            path = path.with_suffix(f".{form}")
            path.write_bytes(gzip.compress(data) if "gz" in form else data)
    return folder


@pytest.mark.parametrize("form", ["csv", "csv.gz", "jsonl.gz", "parquet", "arrow", "two"])
def test_each_format_is_kept_on_disk_whatever_becomes_of_the_file(tmp_path, compare, form):
    (tmp_path / "set").mkdir()
    folder = written(tmp_path / "set" / "train", form)
    make = lambda: Gsm8k(path=str(tmp_path / "set"))  # noqa: E731
    assert compare(make), "read whole"
    data = make().build()
    for path in folder.iterdir():
        path.write_bytes(b"")
    assert {data[i].answer for i in (0, 11, len(data) - 1)} <= {str(i) for i in range(3_000)}


def test_small_files_are_kept_in_memory(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(table([["question", "answer"], ["1?", "1"]]))
    assert isinstance(Jsonl(path=path)._load().examples, tuple)


def test_bytes_that_no_json_holds_are_kept_too(tmp_path, compare):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    rows = [{"question": "?", "answer": "1", "image": b"\x00\xff", "id": "a"}]
    parquet.write_table(pa.Table.from_pylist(rows), path)
    assert compare(lambda: Jsonl(path=path, id="id"))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "jsonl.gz", "parquet"])
def test_a_row_takes_eight_bytes_of_memory(tmp_path, form):
    """Each file is read whole into tens of MiB otherwise."""
    rows, draw = 60_000, random.Random(0)
    texts = [[f"{i}? {draw.randbytes(150).hex()}", str(i)] for i in range(rows)]
    path = tmp_path / f"rows.{form}"
    if form == "parquet":
        pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        columns = dict(zip(("question", "answer"), zip(*texts, strict=True), strict=True))
        parquet.write_table(
            pa.table({k: list(v) for k, v in columns.items()}), path, row_group_size=5_000
        )
    else:
        data = table([["question", "answer"], *texts]) if form == "csv" else lines(texts)
        path.write_bytes(gzip.compress(data, 1) if form == "jsonl.gz" else data)
    del texts
    tracemalloc.start()
    data = Jsonl(path=path).build()
    assert data[rows // 2].answer
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * rows + 6 * 2**20
