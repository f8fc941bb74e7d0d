"""The real recipes, through the real command."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from alignkit.cli import main


@pytest.fixture
def alignkit(monkeypatch):
    """Call ``alignkit`` from the root of the checkout and return click's result."""
    monkeypatch.chdir(Path(__file__).resolve().parents[3])
    return lambda *args: CliRunner().invoke(main, [str(a) for a in args])
