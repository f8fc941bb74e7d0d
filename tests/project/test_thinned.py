"""Large grids of slow tests are thinned; no value of a parameter is lost."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from thinned import chosen


@given(st.lists(st.integers(2, 9), min_size=2, max_size=3), st.integers(1, 6))
def test_every_value_of_a_grid_is_in_some_case_that_runs(sizes, every):
    cases = [dict(enumerate(case)) for case in product(*map(range, sizes))]
    run = chosen(cases, every)
    assert run == sorted(set(run))
    for axis, size in enumerate(sizes):
        assert {cases[i][axis] for i in run} == set(range(size))
    assert len(run) <= len(cases) / every + sum(sizes)


@given(st.integers(1, 60), st.integers(1, 6))
def test_of_a_list_one_in_so_many_runs(count, every):
    assert chosen([{"case": i} for i in range(count)], every) == list(range(0, count, every))
