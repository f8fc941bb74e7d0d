"""Files that unpack to very much, and files of many rows: bounded, and read one row at a time."""

import gzip
import json
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit.data_files.columns import half_surrogate
from alignkit.data_files.json_rows import json_values
from alignkit.data_files.reader import read_rows
from alignkit.data_files.records import Fault
from alignkit.errors import AlignkitError
from alignkit_data import Gsm8k, Jsonl, Math

ROW = json.dumps({"question": "what is 1 + 1?", "answer": "it is #### 2", "problem": "1 + 1"})


@pytest.mark.parametrize("kind", [Jsonl, Gsm8k, Math])
def test_what_a_file_unpacks_to_is_bounded_by_a_key(kind, tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    half = gzip.compress((ROW + "\n").encode() + b"\n" * 2**20)
    path.write_bytes(half + half)  # of several members, as cat makes them
    given = path if kind is Jsonl else str(path)
    assert list(kind(path=given, max_unpacked_gib=0.01).check({})) == []
    tracemalloc.start()
    [(_, said)] = kind(path=given, max_unpacked_gib=0.001).check({})
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()
    assert "unpacks to more than 0.001 GiB" in said
    assert "max_unpacked_gib" in said
    with pytest.raises(AlignkitError, match="unpacks to more than"):
        kind(path=given, max_unpacked_gib=0.001).build()


def test_there_is_a_bound_without_the_key(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(gzip.compress(b"\n" * 2**21))
    assert Jsonl(path=path).max_unpacked_gib == 2.0
    [fault] = read_rows(path, unpacked_gib=2**-10)
    assert isinstance(fault, Fault)


def several(values):
    """Write values as one of them a line, but some over several lines."""
    return "\n".join(json.dumps(v, indent=2 if many else None) for v, many in values).encode()


@settings(max_examples=50)
@given(st.lists(st.tuples(st.dictionaries(st.text(), st.integers()), st.booleans())))
def test_objects_on_a_line_and_over_several_are_all_found(values):
    found = list(json_values(several(values)))
    assert [f.value for f in found] == [value for value, _ in values]
    assert [f.line for f in found] == sorted(f.line for f in found)


@given(st.lists(st.sampled_from(['{"a": 1}', "{", "3", "", '{"a":', "]"]), max_size=6))
def test_broken_lines_are_named_and_the_others_read(lines):
    found = list(json_values("\n".join(lines).encode()))
    assert [f.line for f in found] == sorted(f.line for f in found)
    if lines[:1] == ['{"a": 1}']:
        whole = [f.value for f in found if not isinstance(f.value, Fault)]
        assert whole == [json.loads(s) for s in lines if s in ('{"a": 1}', "3")] or "{" in lines[1:]


@given(st.text(st.characters(categories=["L", "Cs", "Zs"])))
def test_halves_of_characters_are_seen(text):
    assert half_surrogate(text) == any(0xD800 <= ord(c) <= 0xDFFF for c in text)


def test_rows_come_one_at_a_time(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text((ROW + "\n") * 20_000)
    size = path.stat().st_size
    tracemalloc.start()
    assert sum(1 for _ in read_rows(path)) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * size


def test_checking_a_row_costs_little_more_than_its_json(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(ROW[:-1] + f', "n": {i}}}\n' for i in range(20_000)))

    def bare():
        for line in path.read_text().splitlines():
            json.loads(line)

    def checked():
        path.touch()  # what was read before counts no more
        assert not list(Jsonl(path=path).check({}))

    def seconds(function):
        began = time.process_time()
        function()
        return time.process_time() - began

    ratio = min(seconds(checked) for _ in range(3)) / min(seconds(bare) for _ in range(3))
    assert ratio < 11  # 7 here; 17 where each row's path is made anew
