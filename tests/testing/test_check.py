"""``alignkit check``: a file or an installed plugin against the conformance kit."""

import sys

import pytest

from alignkit.testing import run_cli

ADVANTAGE = '''"""An advantage."""
from collections.abc import Iterator
from alignkit import Component, Params, hookimpl
from alignkit.protocols import Advantage


class Centred(Params[Advantage]):
    """Rewards less the mean of their group."""

    factor: float
    """What they are multiplied with."""

    def build(self) -> Advantage:
        def advantage(rewards, /, *, group_size):
            groups = rewards.view(-1, group_size)
            return (self.factor * (groups - groups.mean(1, keepdim=True))).view(-1)

        return advantage


@hookimpl
def advantage() -> Iterator[Component[Advantage]]:
    yield Component("centred", Centred)
'''


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(ADVANTAGE)
    return tmp_path / "mine.py"


def test_a_sound_file_passes(file):
    done = run_cli("check", "mine.py", "-s", "advantage.centred.factor=1.0")
    assert done.status == 0, done.stdout + done.stderr
    assert "advantage/centred: " in done.stdout
    assert " 0 failed" in done.stdout


def test_what_is_wrong_is_said_and_ends_in_an_error(file):
    file.write_text(ADVANTAGE.replace("view(-1, group_size)", "flip(0).view(-1, group_size)"))
    done = run_cli("check", "mine.py", "-s", "advantage.centred.factor=1.0")
    assert done.status != 0
    assert "FAILED" in done.stdout
    assert "failed" in done.stderr


def test_a_component_that_lacks_a_value_says_how_to_give_it(file):
    done = run_cli("check", "mine.py")
    assert done.status != 0
    assert "needs a value for 'factor'" in done.stdout


def test_an_installed_plugin_is_checked_by_its_name():
    done = run_cli("check", "normalizers")
    assert done.status == 0, done.stdout + done.stderr
    assert "normalizer/masked_mean" in done.stdout


def test_a_plugin_that_is_not_there_fails():
    done = run_cli("check", "normalisers")
    assert done.status != 0
    assert "Did you mean" in done.stdout


def test_without_pytest_it_says_what_to_install(file, monkeypatch):
    monkeypatch.delitem(sys.modules, "alignkit_testing.report", raising=False)
    monkeypatch.setitem(sys.modules, "pytest", None)  # as where it is not installed
    done = run_cli("check", "mine.py", "-s", "advantage.centred.factor=1.0")
    assert done.status == 2
    assert "pip install pytest" in done.stderr
