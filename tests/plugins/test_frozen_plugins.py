"""Plugins as authors published them for earlier versions: this version loads and runs them.

``tests/fixtures/frozen/`` has built distributions, one for each kind, and the script that built
them. They are never built again: what fails here would fail for everybody who wrote such a plugin.
"""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from alignkit import plugins
from alignkit.kinds import HOOKS
from alignkit.testing import checks, tiny_model

ROOT = Path(__file__).resolve().parents[2]
FROZEN = ROOT / "tests" / "fixtures" / "frozen"
WHEELS = sorted(FROZEN.glob("*/*.whl"))
OFFERS = {
    "frozen_advantage": ("advantage", "frozen_advantage"),
    "frozen_algorithm": ("algorithm", "frozen_algorithm"),
    "frozen_command": ("command", "frozen_last"),
    "frozen_dataset": ("dataset", "frozen_dataset"),
    "frozen_environment": ("environment", "frozen_environment"),
    "frozen_loss": ("loss_type", "frozen_loss"),
    "frozen_normalizer": ("normalizer", "frozen_normalizer"),
    "frozen_optimizer": ("optimizer", "frozen_optimizer"),
    "frozen_policy": ("policy", "frozen_policy"),
    "frozen_preference": ("preference_loss", "frozen_preference"),
    "frozen_prompt": ("prompt_template", "frozen_prompt"),
    "frozen_reward": ("reward_fn", "frozen_reward"),
    "frozen_rollout": ("rollout_backend", "frozen_rollout"),
    "frozen_tracker": ("tracker", "frozen_tracker"),
}
SLOW = {"frozen_algorithm", "frozen_policy", "frozen_rollout", "frozen_optimizer"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder in which the wheels are installed; a pure wheel is installed by unpacking it."""
    folder = tmp_path_factory.mktemp("site")
    for wheel in WHEELS:
        zipfile.ZipFile(wheel).extractall(folder)
    return folder


@pytest.fixture
def registry(site, monkeypatch):
    monkeypatch.syspath_prepend(site)
    return plugins.load()


def test_there_is_a_frozen_plugin_for_each_kind():
    assert len(WHEELS) == len(OFFERS) >= 12
    assert {kind for kind, _ in OFFERS.values()} == set(HOOKS)


def test_the_wheels_are_those_that_were_frozen():
    kept = dict(line.split("  ")[::-1] for line in (FROZEN / "SHA256SUMS").read_text().splitlines())
    found = {
        f"{w.parent.name}/{w.name}": hashlib.sha256(w.read_bytes()).hexdigest() for w in WHEELS
    }
    assert found == kept


def test_all_are_active_and_offer_what_they_did(registry):
    found = {p.name: p for p in registry.plugins if p.name in OFFERS}
    assert {n: (p.status, p.detail) for n, p in found.items()} == dict.fromkeys(
        OFFERS, ("active", "")
    )
    assert {n: p.provides for n, p in found.items()} == {
        name: {kind: [offered]} for name, (kind, offered) in OFFERS.items()
    }


NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in OFFERS]


@pytest.mark.parametrize("name", NAMES)
def test_each_conforms(registry, name):
    kind, offered = OFFERS[name]
    given = {"path": str(tiny_model())} if kind == "policy" else {}
    done = failed = 0
    for case in checks(name, {f"{kind}/{offered}": given} if given else {}, registry=registry):
        try:
            case.run()
        except pytest.skip.Exception as skipped:
            pytest.fail(f"{case.id} was skipped: {skipped}")
        except AssertionError as error:
            failed += 1
            print(f"{case.id}: {error}")
        done += 1
    assert failed == 0
    assert done >= 10


RECIPE = """
use = "grpo"
n_steps = 1
rollout_batch_size = 8
train_batch_size = 8
group_size = 4
[policy]
use = "frozen_policy"
path = "alignkit:data/tiny_policy"
[data]
use = "frozen_dataset"
rows = 12
[prompt]
use = "frozen_prompt"
[reward]
use = "frozen_reward"
[advantage]
use = "frozen_advantage"
[loss]
use = "frozen_loss"
slack = 0.2
[normalizer]
use = "frozen_normalizer"
[rollout]
use = "frozen_rollout"
max_tokens = 8
[optimizer]
use = "frozen_optimizer"
lr = 0.001
[[trackers]]
use = "frozen_tracker"
"""
EPISODES = """
use = "frozen_algorithm"
n_steps = 1
batch_size = 4
[policy]
use = "frozen_policy"
path = "alignkit:data/tiny_policy"
[data]
use = "frozen_dataset"
[environment]
use = "frozen_environment"
max_turns = 2
[loss]
use = "frozen_loss"
[normalizer]
use = "frozen_normalizer"
[rollout]
use = "frozen_rollout"
max_tokens = 6
[optimizer]
use = "frozen_optimizer"
[[trackers]]
use = "frozen_tracker"
"""
PAIRS = [
    "recipes/dpo.toml",
    "-s",
    "loss.use=frozen_preference",
    "-s",
    "optimizer.use=frozen_optimizer",
]
PAIRS += ["-s", "n_steps=1", "-s", "train_batch_size=4", "-s", "eval.n=4"]
PAIRS += ["-s", "data.path=alignkit:data/preferences/test.jsonl"]


def alignkit(site, folder, *words):
    """Run alignkit with the frozen plugins installed, in a process of its own."""
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(
        [sys.executable, "-m", "alignkit", *map(str, words)],
        cwd=folder, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def used(run):
    facts = json.loads((run / "manifest.json").read_text())
    assert facts["status"] == "done"
    return {c["dist"] for c in facts["components"] if c["dist"] != "alignkit"}


@pytest.mark.slow
def test_a_run_of_them_takes_a_step_and_their_command_reads_it(site, tmp_path):
    (tmp_path / "all.toml").write_text(RECIPE)
    said = alignkit(site, tmp_path, "run", "all.toml", "--out", "run")
    assert "loss.slack: is called 'room' now" in said  # a plugin's own renamed key
    named = "advantage dataset loss normalizer optimizer policy prompt reward rollout tracker"
    assert used(tmp_path / "run") == {f"alignkit-frozen-{name}" for name in named.split()}
    assert (tmp_path / "run" / "counted.txt").read_text().startswith("done: ")
    assert "train/loss" in alignkit(site, tmp_path, "frozen-last", "run")


@pytest.mark.slow
def test_its_algorithm_plays_its_environment(site, tmp_path):
    (tmp_path / "episodes.toml").write_text(EPISODES)
    alignkit(site, tmp_path, "run", "episodes.toml", "--out", "run")
    assert {"alignkit-frozen-algorithm", "alignkit-frozen-environment"} <= used(tmp_path / "run")


@pytest.mark.slow
def test_its_preference_loss_trains(site, tmp_path):
    alignkit(site, ROOT, "run", *PAIRS, "--out", tmp_path / "run")
    assert used(tmp_path / "run") == {"alignkit-frozen-preference", "alignkit-frozen-optimizer"}
