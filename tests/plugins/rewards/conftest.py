import json
import sys
import textwrap
from pathlib import Path

import pytest

from alignkit.protocols import Example
from alignkit_rewards import Python
from alignkit_rewards.pool import Pool, close_pool

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def example():
    """Make a row of a dataset with the given gold."""

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

    close_pool()


@pytest.fixture
def own(tmp_path):
    """Write a file of code, and files beside it; return a reward made of it, closed in the end."""
    made = []

    def write(body, beside=(), folder="own", built=True, **keys):
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        for name, text in {**dict(beside), "judge.py": body}.items():
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text(textwrap.dedent(text))
        params = Python(file=place / "judge.py", **keys)
        if not built:
            return params
        made.append(params.build())
        return made[-1]

    yield write
    for reward in made:
        if hasattr(reward, "close"):
            reward.close()
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]  # other tests have helpers of the same names


@pytest.fixture
def pool():
    made = Pool(1)
    yield made
    made.close()
