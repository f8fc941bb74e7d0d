"""What hostile names and texts are put to."""

import pytest

from alignkit import plugins


@pytest.fixture(scope="session")
def registry():
    return plugins.load()


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
