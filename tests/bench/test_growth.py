"""Bounds on how costs grow, at the smaller sizes of growth.py; RESULTS.md has the larger ones."""

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).with_name("growth.py")
SPEC = importlib.util.spec_from_file_location("growth", HERE)
growth = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(growth)


def costs(part, place, *wanted):
    """Return processor seconds and MiB of each wanted size of a part."""
    found = {size: command for size, *command in part(place) if size in wanted}
    return [growth.measured(*found[size]) for size in wanted]


@pytest.mark.slow
def test_a_hundred_plugins_cost_little_more_than_one(tmp_path):
    one, many = costs(growth.plugins, tmp_path, "1", "100")
    assert many[0] < one[0] + 1.0
    assert many[1] < one[1] + 8


@pytest.mark.slow
def test_a_larger_batch_takes_its_time_and_hardly_more_memory(tmp_path):
    """Eight times the responses of 8.7 s, of which most is the start."""
    small, large = costs(growth.responses, tmp_path, "128", "1,024")
    assert large[0] < 2 * small[0]
    assert large[1] < 1.25 * small[1]


@pytest.mark.slow
def test_steps_do_not_gather_memory(tmp_path):
    few, many = costs(growth.steps, tmp_path, "30", "300")
    assert many[0] < 10 * few[0]
    assert many[1] < 1.05 * few[1]


@pytest.mark.slow
def test_runs_of_a_sweep_side_by_side_cost_what_they_cost_in_turn(tmp_path):
    one, four = costs(growth.sweep_jobs, tmp_path, "--jobs 1", "--jobs 4")
    assert four[0] < 1.4 * one[0]
    assert four[1] < 1.1 * one[1]
