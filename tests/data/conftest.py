"""The embedded default as it is shipped, and the code that makes it."""

import json
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[2] / "data"


@pytest.fixture
def data() -> Path:
    return DATA


@pytest.fixture
def maker(monkeypatch):
    """Import a module of ``data/maker`` as ``data/make.py`` does."""
    from importlib import import_module

    monkeypatch.syspath_prepend(str(DATA))
    return lambda name: import_module(f"maker.{name}")


@pytest.fixture
def rows(data):
    """Return the rows of a shipped file."""
    return lambda name: [json.loads(line) for line in (data / name).read_text().splitlines()]
