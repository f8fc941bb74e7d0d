"""Four of the shipped sweeps run for real, reduced, through the command."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignkit.testing import run_cli
from alignkit_sweep import launchers

pytestmark = pytest.mark.slow
SWEEPS = Path(__file__).resolve().parents[3] / "recipes" / "sweeps"

SMALL = """
n_steps = 2
rollout_batch_size = 16
train_batch_size = 16
group_size = 4
[rollout]
use = "hf"
max_tokens = 24
[eval]
n = 8
"""
FEWER = {  # runs that are left, and what leaves so few
    "lr": (5, "seeds = [0]\n"),
    "baselines": (4, ""),
    "clip_ablation": (2, "seeds = [0]\n"),
    "off_policy": (
        7,
        "[variants.broad]\ngrid.epochs_per_rollout_batch = [1, 2]\n"
        "factors.train_batch_size = [1, 0.5]\n"
        "[variants.focused]\nseeds = [0]\n[variants.on_policy]\nseeds = [0]\n",
    ),
}


def started(command, folder):
    """Make a sweep by a command of its own, which starts a Python for each of its runs."""
    done = subprocess.run(
        [sys.executable, "-m", "alignkit", *command],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def forked(warm, monkeypatch):
    """Make a sweep in this process, whose runs need not import anything."""

    def make(command, folder):
        monkeypatch.chdir(folder)
        popen = SimpleNamespace(**vars(subprocess) | {"Popen": warm.popen})
        monkeypatch.setattr(launchers, "subprocess", popen)
        done = run_cli(*command)
        assert done.status == 0, done.stdout + done.stderr
        return done.stdout

    return make


@pytest.mark.parametrize("name", FEWER)
def test_a_shipped_sweep_runs_once_and_is_reported(tmp_path, forked, name):
    make = started if name == "clip_ablation" else forked
    runs, fewer = FEWER[name]
    (tmp_path / "small.toml").write_text(SMALL)
    (tmp_path / "s.toml").write_text(f'extends = "{SWEEPS / name}.toml"\n{fewer}')
    command = ["sweep", "s.toml", "--with", "small.toml"]
    first = make([*command, "--jobs", "2"], tmp_path)
    assert first.count(": done, step ") == runs
    assert len(list((tmp_path / "runs/s+small").glob("**/final/config.json"))) == runs
    again = make(command, tmp_path)
    assert "started" not in again
    assert "report: runs/s+small/report.html" in again
    page = (tmp_path / "runs/s+small/report.html").read_text()
    assert "Held-out accuracy" in page
    assert "Samples over time" in page
