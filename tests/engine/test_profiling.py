"""The profiler: which steps, what it leaves, what it prints."""

import gzip
import json

import pytest
import torch

from alignkit.engine.observing.clock import Clock
from alignkit.engine.observing.profiling import Profiler, phases


def run(folder, last, *, first=1):
    """Return what is said of steps that multiply in step 2 and exponentiate in every other."""
    said = []
    profiler = Profiler(folder, said.append, first=first, last=last)
    x = torch.ones(64, 64)
    for step in range(first, last + 1):
        profiler.before(step)
        clock = Clock()
        with clock("rollout"):
            for _ in range(20):
                x = x @ x / 64 if step == 2 else x.exp() / 3
        profiler.after(step, clock.seconds)
    profiler.close()
    return said


def test_steps_two_and_three_are_traced_and_told(tmp_path):
    table, operators, where = run(tmp_path, 4)
    assert table.splitlines()[1].split()[0] == "rollout"
    assert table.splitlines()[1].endswith("100.0%")
    lines = {line.split()[0]: line.split() for line in operators.splitlines()[1:]}
    assert lines["aten::mm"][1] == "20"  # step 2
    assert lines["aten::exp"][1] == "20"  # step 3 alone; with steps 1 and 4 it would be 60
    (trace,) = tmp_path.iterdir()
    assert str(trace) in where
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    names = {event.get("name") for event in events}
    assert {"alignkit/rollout", "aten::mm"} <= names


@pytest.mark.parametrize(("first", "last", "steps"), [(1, 1, "1 to 1"), (7, 20, "8 to 9")])
def test_short_and_resumed_runs(tmp_path, first, last, steps):
    *_, where = run(tmp_path, last, first=first)
    assert where.startswith(f"profile of steps {steps}: ")


def test_phases_are_sorted_with_their_shares():
    assert phases({"sync": 1.0, "rollout": 3.0}).splitlines()[1:] == [
        "rollout                      3.000   75.0%",
        "sync                         1.000   25.0%",
    ]
