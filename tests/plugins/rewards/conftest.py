import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def example():
    """Make a row of a dataset with the given gold."""
    from alignkit.protocols import Example

    def make(gold, **extra):
        return Example("0", "q", gold, extra)

    return make


@pytest.fixture(scope="session")
def tagged():
    """Wrap an answer the way the r1_zero format wants it."""
    return lambda answer: f"some thoughts </think> <answer>{answer}</answer>"


@pytest.fixture(scope="session")
def grader_cases():
    """Read a file of the grader cases beside the checkout; skip where it is absent."""
    folder = Path(__file__).resolve().parents[4] / "shared" / "grader_cases"

    def read(name):
        if not folder.is_dir():
            pytest.skip(f"no grader cases at {folder}")
        return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]

    return read


@pytest.fixture(scope="session", autouse=True)
def _no_worker_outlives_the_tests():
    yield
    from alignkit_rewards.pool import close_pool

    close_pool()
