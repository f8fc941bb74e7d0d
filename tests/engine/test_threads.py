"""The number of threads: by cores, by the container's share, by the model's size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alignkit.engine.forward import threads
from alignkit.engine.forward.threads import fit_threads, threads_for
from alignkit.lifecycle import cpus
from alignkit.lifecycle.cpus import SAID, quota, threads_at_most, usable_cpus
from alignkit.lifecycle.manifest import machine

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("weights", "cores", "cpus", "wanted"),
    [
        (10**9, 16, None, 16),
        (10**9, 64, 3.5, 4),  # without a look at the quota: 64
        (10**9, 8, 0.4, 1),
        (10**9, 2, 12.0, 2),
        (450_000, 16, None, 1),
    ],
)
def test_by_size_cores_and_share(weights, cores, cpus, wanted):
    assert threads_for(weights, cores, cpus) == wanted


def test_what_a_container_is_given(tmp_path):
    assert quota(tmp_path) is None
    old = tmp_path / "cpu"
    old.mkdir()
    (old / "cpu.cfs_quota_us").write_text("-1\n")
    (old / "cpu.cfs_period_us").write_text("100000\n")
    assert quota(tmp_path) is None
    (old / "cpu.cfs_quota_us").write_text("250000\n")
    assert quota(tmp_path) == 2.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert quota(tmp_path) == 1.5


@pytest.fixture
def unsaid(monkeypatch):
    """Nobody has said a number; what is set is put back."""
    before = torch.get_num_threads()
    for name in SAID:
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(2)
    monkeypatch.setattr(threads, "_AT_START", 2)
    yield monkeypatch
    torch.set_num_threads(before)


def test_a_small_model_gets_one_and_a_said_number_stays(unsaid):
    model = torch.nn.Linear(4, 4)
    unsaid.setenv("OMP_NUM_THREADS", "2")
    fit_threads(model)
    assert torch.get_num_threads() == 2
    unsaid.delenv("OMP_NUM_THREADS")
    torch.set_num_threads(3)  # by hand, or for a model before this one
    fit_threads(model)
    assert torch.get_num_threads() == 3
    torch.set_num_threads(2)
    fit_threads(model)
    assert torch.get_num_threads() == 1


def given(folder, cpus, version):
    """Write what a container that may use so many CPUs finds as its cgroup; return the folder."""
    if version == 2:
        (folder / "cpu.max").write_text(f"{round(cpus * 100_000)} 100000\n")
    else:
        (folder / "cpu").mkdir()
        (folder / "cpu/cpu.cfs_quota_us").write_text(f"{round(cpus * 100_000)}\n")
        (folder / "cpu/cpu.cfs_period_us").write_text("100000\n")
    return folder


@pytest.fixture
def many_cores(unsaid):
    """A machine of 64 cores, and a model that is not small."""
    unsaid.setattr(os, "sched_getaffinity", lambda _: range(64))
    unsaid.setattr(os, "cpu_count", lambda: 64)
    unsaid.setattr(threads, "_AT_START", 64)
    unsaid.setattr(threads, "SMALL", 1)
    torch.set_num_threads(64)
    return unsaid


@pytest.mark.parametrize("version", [1, 2])
def test_torch_and_all_that_is_said_of_threads_agree_on_the_share(many_cores, tmp_path, version):
    from alignkit_rewards import pool

    fit_threads(torch.nn.Linear(4, 4))
    assert torch.get_num_threads() == threads_at_most({}) == usable_cpus() == 64
    many_cores.setattr(cpus, "GROUP", given(tmp_path, 3.4, version))
    fit_threads(torch.nn.Linear(4, 4))
    assert torch.get_num_threads() == usable_cpus() == pool._size() == 3
    assert machine({})["hardware"]["threads"] == 3
    assert machine({"OMP_NUM_THREADS": "2"})["hardware"]["threads"] == 2


RUN = """
import sys
from pathlib import Path
import torch
from alignkit.lifecycle import cpus
cpus.GROUP = Path(sys.argv.pop(1))
torch.set_num_threads(8)
from alignkit.engine.forward import threads
threads.SMALL = int(sys.argv.pop(1))
from alignkit.cli import main
try:
    main()
finally:
    print("threads:", torch.get_num_threads())
"""


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("small", "wanted"), [(0, 3), (2_000_000, 1)])
def test_the_manifest_names_the_threads_that_computed(tmp_path, version, small, wanted):
    group = tmp_path / "cgroup"
    group.mkdir()
    words = [given(group, 3.4, version), small, "run", ROOT / "recipes/grpo.toml"]
    words += ["--out", tmp_path / "run", "-s", "n_steps=1", "-s", "rollout_batch_size=8"]
    words += ["-s", "train_batch_size=8", "-s", "eval.n=8", "-s", "rollout.max_tokens=4"]
    unsaid = {name: value for name, value in os.environ.items() if name not in SAID}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, words)],
        cwd=ROOT, env=unsaid, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"threads: {wanted}\n" in done.stdout
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["hardware"]["threads"] == wanted
