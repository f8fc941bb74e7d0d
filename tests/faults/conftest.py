"""A small run of real components, and disks that fill."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from alignkit import plugins, recipe
from alignkit.resume import resume
from alignkit.run import execute

COMMON = """
[policy]
use = "hf"
path = "{model}"
[data]
use = "jsonl"
path = "rows.jsonl"
[prompt]
use = "question_only"
[optimizer]
use = "adamw"
lr = 1e-3
"""
SFT = f"""
use = "sft"
seed = 1
n_steps = 4
train_batch_size = 4
{COMMON}
[normalizer]
use = "token_mean"
[checkpoint]
every = 1
keep_last = 9
"""
GRPO = f"""
use = "grpo"
seed = 1
n_steps = 4
rollout_batch_size = 8
group_size = 4
train_batch_size = 8
{COMMON}
[reward]
use = "python"
file = "judge.py"
[advantage]
use = "group_std"
[loss]
use = "grpo_clip"
[normalizer]
use = "masked_mean"
[rollout]
use = "hf"
max_tokens = 5
[checkpoint]
every = 0
"""
JUDGE = "def reward(response, example):\n    return float(len(response) % 2)\n"


@dataclass
class Runs:
    """Starts and resumes runs of a recipe in one folder."""

    folder: Path
    model: Path
    registry: plugins.Registry

    def start(self, text=SFT, *overrides, out="run"):
        (self.folder / "r.toml").write_text(text.format(model=self.model))
        node = recipe.load(self.folder / "r.toml", self.registry, (), overrides)
        return execute(node, self.folder / "r.toml", self.folder / out, ["alignkit", "run"])

    def resume(self, out="run"):
        return resume(self.folder / out, self.registry, ["alignkit", "resume"])

    def unfinish(self, out):
        """Make a finished run one that was ended before its end."""
        path = self.folder / out / "manifest.json"
        facts = json.loads(path.read_text())
        path.write_text(json.dumps({**facts, "status": "interrupted"}))

    def weights(self, out):
        return (self.folder / out / "final/model.safetensors").read_bytes()

    def rows(self, out="run"):
        return [
            json.loads(r) for r in (self.folder / out / "metrics.jsonl").read_text().splitlines()
        ]


@pytest.fixture(scope="session")
def registry():
    return plugins.load()


@pytest.fixture
def runs(tmp_path, tiny_folder, registry, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"What is {i} + {i}?", "answer": f"it is {2 * i}"} for i in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "judge.py").write_text(JUDGE)
    return Runs(tmp_path, tiny_folder, registry)


@pytest.fixture
def disk(tmp_path):
    """``disk(name, size)``: a file system of its own at that path; needs the right to mount."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    mounted = []

    def mount(name, size):
        place = tmp_path / name
        place.mkdir(exist_ok=True)
        options = f"size={size}" if not mounted else f"remount,size={size}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.decode().strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in set(mounted):
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def grpo():
    """The text of a small GRPO recipe whose judge is the file judge.py."""
    return GRPO


@pytest.fixture
def sft():
    """The text of a small SFT recipe that saves a checkpoint after each step."""
    return SFT
