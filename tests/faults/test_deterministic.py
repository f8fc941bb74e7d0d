"""The switch --deterministic: set before torch is loaded, recorded, and kept by resume."""

import json
import os

import pytest
from click.testing import CliRunner

from alignkit.cli import main
from alignkit.lifecycle import determinism


@pytest.fixture
def as_before(monkeypatch):
    """Undo what the switch does to the process."""
    import torch

    for name in (determinism.VARIABLE, determinism.WORKSPACE):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    cudnn = (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    yield torch
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn


def test_the_switch_is_recorded_repeats_and_lasts(runs, grpo, as_before):
    torch = as_before
    (runs.folder / "r.toml").write_text(grpo.format(model=runs.model))
    for out in ("one", "two"):
        words = ["run", "r.toml", "--out", out, "--deterministic"]
        done = CliRunner().invoke(main, [*words, "-s", "checkpoint.every=2"])
        assert done.exit_code == 0, done.output
        assert torch.are_deterministic_algorithms_enabled()
        assert json.loads((runs.folder / out / "manifest.json").read_text())["deterministic"]
    assert os.environ[determinism.WORKSPACE] == ":4096:8"
    assert runs.weights("one") == runs.weights("two")
    for name in (determinism.VARIABLE, determinism.WORKSPACE):
        os.environ.pop(name)
    torch.use_deterministic_algorithms(False)
    runs.unfinish("one")
    runs.resume("one")
    assert torch.are_deterministic_algorithms_enabled()
    assert runs.weights("one") == runs.weights("two")


def test_without_it_nothing_is_switched_and_the_manifest_says_so(runs, as_before):
    run = runs.start()
    assert not as_before.are_deterministic_algorithms_enabled()
    assert json.loads((run.dir / "manifest.json").read_text())["deterministic"] is False
    assert determinism.WORKSPACE not in os.environ
