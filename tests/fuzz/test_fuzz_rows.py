"""Made-up data files: every bad row is reported with its place, and nothing else is raised."""

import gzip
import json
import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

QUIET = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
}


def test_changed_rows_are_read_or_reported(targets, cases, guarded, tmp_path):
    read = targets.Rows(tmp_path)
    for number in range(cases):
        draw = random.Random(f"rows/{number}")
        data, name = targets.bad_rows(draw), draw.choice(("rows.jsonl", "rows.jsonl", "rows.json"))
        if draw.random() < 0.1:
            data, name = targets.mutate(draw, gzip.compress(data)), f"{name}.gz"
        with guarded((name, data)):
            read(data, name)
    assert 0.3 * cases < read.refused < cases


def test_rows_of_any_shape_are_read_or_reported(targets, cases, guarded, tmp_path):
    read = targets.Rows(tmp_path)
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    values = st.recursive(
        leaves,
        lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3),
    )
    columns = st.sampled_from(["question", "answer", "id", "problem", "solution", "unique_id"])
    rows = st.dictionaries(columns | st.text(max_size=5), values, max_size=6) | values

    @settings(max_examples=cases, **QUIET)
    @given(st.lists(rows, min_size=1, max_size=4), st.booleans())
    def check(made, ascii_only):
        lines = (json.dumps(row, ensure_ascii=ascii_only) for row in made)
        data = "\n".join(lines).encode("utf-8", "surrogatepass")
        with guarded(data):
            read(data)

    check()
