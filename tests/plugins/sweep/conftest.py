"""Sweeps of a toy recipe, whose runs a child process stands in for."""

import sys
from pathlib import Path

import pytest

from alignkit_sweep import runner
from alignkit_sweep.plans import Plans
from alignkit_sweep.variants import Sweep

BASE = 'use = "toy"\nn = 4\ngroup = 2\n[loss]\nuse = "clip"\ncliprange = 0.2\n'

CHILD = '''
"""Stands in for `alignkit run PLAN --out DIR`: a run whose accuracy peaks at n = 8."""
import json, os, sys, time, tomllib
from pathlib import Path

plan = tomllib.loads(Path(sys.argv[2]).read_text())
out = Path(sys.argv[4])
with open("journal", "a") as journal:
    journal.write(f"{out.parent.name}/{out.name}\\n")
out.mkdir(parents=True)
manifest = {"status": "running", "seed": plan["seed"]}

def note(facts):  # whole, as a run does
    (out / "partial").write_text(json.dumps(facts))
    os.replace(out / "partial", out / "manifest.json")

note(manifest)
fail = os.environ.get("CHILD") or plan["fail"]
if fail == "die":
    sys.exit("cannot go on: the moon is missing")
score = 1 - abs(plan["n"] - 8) / 10 + plan["seed"] / 100
with (out / "metrics.jsonl").open("w") as rows:
    for step in range(400 if fail in ("nan", "slow") else 3):
        loss = None if fail == "nan" and step else 0.5
        row = {"step": step, "time": step / 10, "train/loss": loss, "eval/answer_reward": score}
        rows.write(json.dumps(row) + "\\n")
        rows.flush()
        if fail:
            time.sleep(0.02)
(out / "final").mkdir()
(out / "recipe.toml").write_text(Path(sys.argv[2]).read_text())
note(manifest | {"status": "done", "seconds": 1.0})
'''


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a recipe, a sweep file and a stand-in for the child process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "POLL", 0.01)
    (tmp_path / "toy.toml").write_text(BASE)
    (tmp_path / "child.py").write_text(CHILD)
    return tmp_path


@pytest.fixture
def sweep(place, registry):
    """Read a sweep file that holds the given text."""

    def read(text, **options):
        (place / "s.toml").write_text(text)
        return Sweep(place / "s.toml", options.pop("registry", registry), **options)

    return read


@pytest.fixture
def make(place):
    """Make the runs of a sweep; return the runner, with what it said and what was started."""

    def run(swept, only=(), say=None, jobs=1, launcher=None):
        said = []
        command = (sys.executable, "-IS", str(place / "child.py"))
        made = runner.Runner(
            Plans(swept, Path("out")), jobs, (), say or said.append, command, launcher
        )
        journal = place / "journal"
        journal.unlink(missing_ok=True)
        try:
            made.run(only)
        finally:
            made.said = said
            made.started = journal.read_text().split() if journal.exists() else []
        return made

    return run
