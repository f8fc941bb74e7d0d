"""Tests that need a CUDA device, on one that is pretended, each folder in a process of its own.

pytest -m pretend tests/pretend
"""

import re

import pytest

pytestmark = pytest.mark.pretend


@pytest.mark.parametrize(
    ("folder", "mark", "fewest"),
    [("tests/gpu", "gpu", 18), ("tests/pretend/device", "pretend", 20)],
    ids=["tests/gpu", "its own"],
)
def test_they_pass(on_pretended_device, folder, mark, fewest):
    done = on_pretended_device("-m", mark, "-rs", "-p", "no:cacheprovider", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed >= fewest, done.stdout  # the others are skipped: vLLM, bitsandbytes
