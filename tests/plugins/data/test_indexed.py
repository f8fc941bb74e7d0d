"""Large files: their rows are read on demand, and are those that reading them whole gives."""

import io
import json
import sys
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignkit.data_files import progress
from alignkit.errors import AlignkitError, RunFailed
from alignkit_data import Gsm8k, Jsonl, Math, indexed, load

TEXT = st.text(max_size=5) | st.sampled_from(["a", "é", "#### 3", "\ud800", " ", "r.jsonl:2"])
VALUE = TEXT | st.integers() | st.none() | st.floats() | st.lists(TEXT, max_size=2)
ROW = st.fixed_dictionaries(
    {"question": TEXT, "answer": TEXT},
    optional={"n": VALUE, "input": VALUE, "id": TEXT, "problem": TEXT, "unique_id": TEXT},
)
GOOD = st.fixed_dictionaries(
    {"question": st.sampled_from(["one?", "é?", "1"]), "answer": st.sampled_from(["#### 1", "ü"])},
    optional={"input": st.sampled_from(["", "x", 3]), "problem": st.just("p"), "q": VALUE},
)
LINE = st.one_of(
    GOOD.map(json.dumps), GOOD.map(lambda r: json.dumps(r, ensure_ascii=False)),
    GOOD.map(lambda r: f"  {json.dumps(r)} \r"), st.sampled_from(["", " ", "\x0b", "\t\r"]),
)  # fmt: skip
ODD = st.one_of(
    ROW.map(json.dumps), st.sampled_from(["3", "{", '{"a": 1} {"a": 2}', "[]", "{}", "\ufeff{}"])
)
TABLES = (
    lambda p, **keys: Jsonl(path=p, input="input", **keys),
    lambda p, **keys: Jsonl(path=p, order="given", **keys),
    lambda p, **_: Jsonl(path=p, id="id"),
    lambda p, **_: Jsonl(path=p, no_answer=True),
    lambda p, **_: Gsm8k(path=str(p)),
    lambda p, **_: Math(path=str(p), question="problem"),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(LINE, max_size=6) | st.lists(LINE | ODD, max_size=6),
    begin=st.sampled_from(["", "\ufeff", "\n"]),
    end=st.sampled_from(["", "\n", "\n\n"]),
    keys=st.fixed_dictionaries({}, optional={"limit": st.integers(1, 4), "skip": st.just(1)}),
    make=st.sampled_from(TABLES),
)
def test_rows_read_on_demand_are_those_of_the_whole_file(
    found, tmp_path, monkeypatch, lines, begin, end, keys, make
):
    path = tmp_path / "r.jsonl"
    path.write_bytes((begin + "\n".join(lines) + end).encode("utf-8", "surrogatepass"))
    answers = []
    for least in (2**40, 0):
        monkeypatch.setattr(indexed, "INDEXED_FROM", least)
        load._load_files.cache_clear()
        answers.append(repr(found(make(path, **keys))))  # NaN equals NaN
    assert answers[0] == answers[1]


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file of 50 rows, the line of every fifth followed by a blank one, that is indexed."""
    monkeypatch.setattr(indexed, "INDEXED_FROM", 0)
    path = tmp_path / "rows.jsonl"
    rows = (
        f'{{"question": "{i}?", "answer": "{i}"}}\n{"" if i % 5 else chr(10)}' for i in range(50)
    )
    path.write_text("".join(rows))
    return path


def test_a_large_file_is_not_kept(large):
    data = Jsonl(path=large).build()
    assert isinstance(data, indexed.Indexed)
    assert (data[-1].question, data[-1].id) == ("49?", "rows.jsonl:60")
    assert [e.answer for e in data[10:30:7]] == ["10", "17", "24"]
    with pytest.raises(IndexError):
        data[50]


@pytest.mark.parametrize("change", ["edit", "append", "cut"])
def test_a_file_that_changes_while_it_is_used_ends_the_run(large, change):
    data, text = Jsonl(path=large).build(), large.read_text()
    large.write_text({"edit": text.replace("9", "8"), "append": text + text, "cut": ""}[change])
    with pytest.raises(RunFailed, match=r"rows\.jsonl was changed while"):
        data[3]


def test_a_file_put_in_its_place_or_deleted_does_no_harm(large):
    data = Jsonl(path=large).build()
    other = large.with_name("other")
    other.write_text("{}\n" * 90)
    other.replace(large)
    assert data[9].question == "9?"
    large.unlink()
    assert data[49].answer == "49"


def test_every_bad_row_of_a_large_file_is_named(large):
    with large.open("a") as file:
        file.write('{"question": "?"}\n{"question": "?", "answer": null}\n')
    said = [message for _, message in Jsonl(path=large).check({})]
    assert [text.partition(": ")[0].rpartition(":")[2] for text in said] == ["61", "62"]
    with pytest.raises(AlignkitError, match="61"):
        Jsonl(path=large).build()


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("least", [0, 2**40], ids=["indexed", "whole"])
def test_reading_for_long_is_told_on_a_terminal_only(tmp_path, monkeypatch, terminal, least):
    monkeypatch.setattr(indexed, "INDEXED_FROM", least)
    monkeypatch.setattr(progress, "FIRST", 0)
    monkeypatch.setattr(progress, "BETWEEN", 0)
    screen = io.StringIO()
    screen.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", screen)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "?", "answer": "1"}\n' * 40_000)
    assert not list(Jsonl(path=path).check({}))
    said = [text.strip() for text in screen.getvalue().split("\r") if text.strip()]
    assert [text.partition(" rows")[0].rpartition(" ")[2] for text in said] == (
        ["16,384", "32,768"] if terminal else []
    )
    assert all("rows.jsonl" in text for text in said)
    assert screen.getvalue().endswith("\r" if terminal else "")


@pytest.mark.slow
def test_a_row_costs_little_more_than_its_json_and_eight_bytes(tmp_path):
    path, rows = tmp_path / "rows.jsonl", 300_000
    path.write_text(
        "".join(f'{{"question": "What is {i}?", "answer": "{i}"}}\n' for i in range(rows))
    )

    def bare():
        with path.open("rb") as file:
            for line in file:
                json.loads(line.decode())

    def used():
        path.touch()  # what was read before counts no more
        table = Jsonl(path=path)
        assert not list(table.check({}))
        assert table.facts({}) == {"rows": f"{rows:,}"}
        assert table.build()[rows // 2].answer == str(rows // 2)

    def seconds(function):
        began = time.process_time()
        function()
        return time.process_time() - began

    assert min(seconds(used) for _ in range(3)) < 2.5 * min(seconds(bare) for _ in range(3))
    tracemalloc.start()
    used()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * rows + 4 * 2**20  # positions, and one buffer
