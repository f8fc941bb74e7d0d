"""A small run of real components, and disks that fill."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from alignkit import plugins, recipe
from alignkit.execution import execute
from alignkit.resume import resume
from alignkit_testing.algorithm import is_measured

collect_ignore = ["faulty.py"]  # a program, not a module

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
TRACKED = ("-s", 'trackers=[{use="jsonl", path="tracked"}]')
"""On the command line: a recipe's own would not be written outside the run directory."""
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


@dataclass
class Faults:
    """Makes runs, in processes of their own, whose components do what they should not."""

    process: subprocess.Popen
    folder: Path
    recipe: Path
    made: dict

    def go(self, out, *more, **fault):
        """Run or resume; return the status of the process and what it said."""
        begun = (self.folder / out / "recipe.toml").exists()
        words = ["resume", out] if begun else ["run", self.recipe.name, "--out", out, *TRACKED]
        log = self.folder / f"{out}.log"
        log.unlink(missing_ok=True)
        job = {"words": [*words, *more], "log": str(log), "cwd": str(self.folder), "fault": fault}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline()), log.read_text()

    def calls(self, kind, *more):
        """Return how often an undisturbed run calls a component."""
        key = (kind, *more)
        if key not in self.made:
            count = self.folder / "count"
            out = f"counted-{len(self.made)}"
            status, said = self.go(out, *more, kind=kind, how="nothing", count=str(count))
            assert status == 0, said
            self.made[key] = (int(count.read_text()), self.left(out))
        return self.made[key]

    def status(self, out):
        return json.loads((self.folder / out / "manifest.json").read_text())["status"]

    def left(self, out):
        """Return what a run leaves that does not depend on time."""
        run = self.folder / out
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        found = {"rows": [{k: v for k, v in r.items() if not is_measured(k)} for r in rows]}
        for name in ("final", "rollouts", "eval"):
            for path in sorted(p for p in (run / name).rglob("*") if p.is_file()):
                found[str(path.relative_to(run))] = path.read_bytes()
        return found


@pytest.fixture(scope="session")
def faults(tmp_path_factory, tiny_folder):
    folder = tmp_path_factory.mktemp("faults")
    rows = [{"question": f"What is {i} + {i}?", "answer": f"it is {2 * i}"} for i in range(12)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "judge.py").write_text(JUDGE)
    text = GRPO.replace("train_batch_size = 8", "train_batch_size = 4").replace(
        "n_steps = 4", "n_steps = 3\nsave_rollouts_every = 1"
    )
    evaluated = '[eval]\nevery = 2\nn = 4\n[eval.data]\nuse = "jsonl"\npath = "rows.jsonl"\n'
    (folder / "r.toml").write_text(text.format(model=tiny_folder) + evaluated)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("faulty.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield Faults(process, folder, folder / "r.toml", {})
        process.stdin.close()


@pytest.fixture
def grpo():
    """The text of a small GRPO recipe whose judge is the file judge.py."""
    return GRPO


@pytest.fixture
def sft():
    """The text of a small SFT recipe that saves a checkpoint after each step."""
    return SFT
