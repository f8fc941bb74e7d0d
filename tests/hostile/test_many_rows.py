"""Long runs and wide sweeps: what is read and written grows with them, not with their square."""

import json
import tracemalloc
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignkit.engine.observing.watch import Rule, Watcher
from alignkit.run_data.groups import group
from alignkit.run_data.metrics import FollowedRows
from alignkit.run_data.runs import find, read
from alignkit_data import Jsonl
from alignkit_report import page, story
from alignkit_report.curves import FEWEST_POINTS, MOST_POINTS, PAGE_POINTS, curve, points_of
from alignkit_sweep.stop import Divergence, StopTable

TIMES = 4


def run_dir(folder, rows, metrics=8):
    folder.mkdir(parents=True)
    values = {f"train/m{i}": 0.5 for i in range(metrics)}
    lines = (json.dumps({"step": s, "time": s / 2, "eval/x": s % 7, **values}) for s in range(rows))
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (folder / "manifest.json").write_text('{"status": "done", "seconds": 5, "seed": 0}')
    (folder / "recipe.toml").write_text(f'use = "sft"\nnote = "{folder.parent.name}"\n')
    return folder


def whole_page(folder):
    page.render(group(find([folder])), "t")


@pytest.mark.slow
@pytest.mark.parametrize("look", [story.of, whole_page], ids=["show", "report"])
def test_the_time_to_show_a_run_grows_with_its_rows(cpu_seconds, tmp_path, look):
    short, long = (run_dir(tmp_path / f"r{n}", n) for n in (4_000, 4_000 * TIMES))
    assert cpu_seconds(look, long) < 1.7 * TIMES * cpu_seconds(look, short)


@pytest.mark.slow
def test_catching_up_on_what_a_resumed_run_had_logged_keeps_no_rows(cpu_seconds, tmp_path):
    short, long = (run_dir(tmp_path / f"w{n}", n) for n in (5_000, 5_000 * TIMES))

    def catch_up(folder):
        Watcher([rule], steps=3).start(SimpleNamespace(dir=folder))

    what = {"action": "warn", "cause": "It is high.", "remedy": "Lower it."}
    rule = Rule(name="high", metric="train/m0", level=0.9, side="above", **what)
    assert cpu_seconds(catch_up, long) < 1.7 * TIMES * cpu_seconds(catch_up, short)
    tracemalloc.start()
    catch_up(long)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20 < (long / "metrics.jsonl").stat().st_size


@pytest.mark.slow
def test_a_row_of_metrics_takes_little_more_memory_than_its_numbers(tmp_path):
    folder = run_dir(tmp_path / "run", 20_000)
    tracemalloc.start()
    found = read(folder)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(found.rows) == 20_000
    assert kept < 900 * 20_000  # 11 numbers and a dict; 1,300 where each row has its own names


@pytest.mark.slow
def test_the_time_and_size_of_a_page_grow_with_its_settings(cpu_seconds, tmp_path):
    for n in (10, 10 * TIMES):
        for i in range(n):
            run_dir(tmp_path / f"s{n}" / f"v{i:03}" / "seed_0", 300)
    few, many = (cpu_seconds(whole_page, tmp_path / f"s{n}") for n in (10, 10 * TIMES))
    assert many < 1.8 * TIMES * few


@pytest.mark.slow
def test_the_time_to_check_rows_grows_with_their_number(cpu_seconds, tmp_path):
    def rows(n):
        path = tmp_path / f"{n}.jsonl"
        path.write_text("".join(f'{{"question": "{i}?", "answer": "{i}"}}\n' for i in range(n)))
        return path

    def check(path):
        path.touch()
        assert not list(Jsonl(path=path).check({}))

    short, long = rows(10_000), rows(10_000 * TIMES)
    assert cpu_seconds(check, long) < 1.7 * TIMES * cpu_seconds(check, short)
    tracemalloc.start()
    check(long)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_200 * 10_000 * TIMES  # bytes a row, of which an Example takes most


def test_a_page_of_many_curves_keeps_fewer_points_of_each(tmp_path):
    assert points_of(20) == MOST_POINTS
    assert points_of(10**6) == FEWEST_POINTS
    for curves in (400, 1000, 4000):
        assert points_of(curves) * curves <= PAGE_POINTS
    [one] = group([read(run_dir(tmp_path / "a", 500))])
    found = curve(one, "eval/x", 50)
    assert (len(found.step), found.step[0], found.step[-1]) == (50, 0, 499)
    assert found.mean == [float(s % 7) for s in found.step]
    assert found.time == [s / 2 for s in found.step]


# ---------------------------------------------------------------- [stop] of a sweep

VALUE = st.none() | st.floats(0, 2)
ROWS = st.lists(st.fixed_dictionaries({}, optional={n: VALUE for n in ("train/loss", "r")}))


def by_whole_rows(rows, stop):
    """What is meant, from all rows at once."""
    trained = [row for row in rows if "train/loss" in row]
    last = trained[len(trained) - stop.nonfinite_steps :]
    if len(trained) >= stop.nonfinite_steps and all(r["train/loss"] is None for r in last):
        return "not finite"
    values = [row["r"] for row in rows if row.get("r") is not None]
    means = [fmean(values[i : i + stop.steps]) for i in range(len(values) - stop.steps + 1)]
    top = max(means[: -stop.steps], default=0.0)
    return "fell" if top > 0 and means[-1] < stop.fraction * top else ""


@given(rows=ROWS, steps=st.integers(1, 4), most=st.integers(1, 3))
def test_a_run_is_given_up_for_the_same_rows_seen_one_by_one(rows, steps, most):
    rows = [{"step": i, **row} for i, row in enumerate(rows)]
    stop = StopTable(metric="r", steps=steps, nonfinite_steps=most, fraction=0.5)
    seen = Divergence(stop)
    for row in rows:
        seen.add(row)
    assert by_whole_rows(rows, stop) in seen.reason()
    assert bool(by_whole_rows(rows, stop)) == bool(seen.reason())


def test_what_is_kept_of_a_run_does_not_grow():
    seen = Divergence(StopTable(metric="r", steps=5))
    for step in range(3_000):
        seen.add({"step": step, "r": 1.0, "train/loss": 1.0})
    assert len(seen._values) + len(seen._means) == 10


def test_a_file_that_is_written_is_read_once(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    followed = FollowedRows(path)
    assert list(followed.more()) == []
    path.write_text('{"step": 0}\n{"st')
    assert [r["step"] for r in followed.more()] == [0]
    with path.open("a") as file:
        file.write('ep": 1}\nbroken\n{"step": 2}\n')
    assert [r["step"] for r in followed.more()] == [1, 2]
    monkeypatch.setattr(Path, "open", lambda *_, **__: pytest.fail("there is nothing new"))
    assert list(followed.more()) == []
    monkeypatch.undo()
    path.write_text('{"step": 0}\n')  # cut back to a checkpoint
    assert [r and r["step"] for r in followed.more()] == [None, 0]
