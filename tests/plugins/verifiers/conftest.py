"""The environments of tests/fixtures, as if they were installed."""

from pathlib import Path

import pytest

ENVIRONMENTS = Path(__file__).resolve().parents[2] / "fixtures" / "verifiers_environments"


@pytest.fixture(autouse=True)
def environments(monkeypatch):
    """The modules of the environments, as if they were installed."""
    monkeypatch.syspath_prepend(ENVIRONMENTS)
