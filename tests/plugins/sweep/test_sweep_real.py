"""Four of the shipped sweeps run for real, reduced, through the command."""

import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("name", FEWER)
def test_a_shipped_sweep_runs_once_and_is_reported(tmp_path, name):
    runs, fewer = FEWER[name]
    (tmp_path / "small.toml").write_text(SMALL)
    (tmp_path / "s.toml").write_text(f'extends = "{SWEEPS / name}.toml"\n{fewer}')
    command = [sys.executable, "-m", "alignkit", "sweep", "s.toml", "--with", "small.toml"]
    first = subprocess.run(
        [*command, "--jobs", "2"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.count(": done, step ") == runs
    assert len(list((tmp_path / "runs/s+small").glob("**/final/config.json"))) == runs
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "started" not in again.stdout
    assert "report: runs/s+small/report.html" in again.stdout
    page = (tmp_path / "runs/s+small/report.html").read_text()
    assert "Held-out accuracy" in page
    assert "Samples over time" in page
