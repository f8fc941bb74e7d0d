"""``tests/bench/first_card.sh``: whoever has a card runs it once. Here, as far as a CPU goes."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "bench" / "first_card.sh"
OVERLAY = "tests/bench/first_card/grpo.toml"
ONE_CARD = ["hardware-24gb", "hardware-40gb", "hardware-80gb"]


def first_card(*words, python, out):
    env = {**os.environ, "PYTHON": str(python), "OUT": str(out)}
    return subprocess.run(
        ["bash", SCRIPT, *words], env=env, capture_output=True, text=True, check=False
    )


def stub(folder, script):
    """Return a program that stands for Python."""
    tool = folder / "python"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    return tool


def states(said):
    """Return the parts by what became of them."""
    found = {}
    for line in said.splitlines():
        if match := re.match(r"(passed|FAILED|skipped)\s+([^:(]+)", line):
            found.setdefault(match[1], []).append(match[2].strip())
    return found


def test_the_script_is_sound_shell():
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_an_option_that_it_has_not_got_is_answered_with_its_use(tmp_path):
    done = first_card("--fast", python="python", out=tmp_path / "results")
    assert done.returncode == 2
    assert "tests/bench/first_card.sh --dry" in done.stdout
    assert not (tmp_path / "results").exists()


def test_without_a_card_it_says_so_and_measures_nothing(tmp_path):
    done = first_card(python=stub(tmp_path, "echo 0"), out=tmp_path / "results")
    assert done.returncode == 2
    assert "torch sees no card; --dry runs on a CPU" in done.stdout
    assert "## benchmark" not in (tmp_path / "results").read_text()


def test_a_python_without_torch_is_named(tmp_path):
    done = first_card("--dry", python=stub(tmp_path, "exit 1"), out=tmp_path / "results")
    assert done.returncode == 2
    assert f"torch does not import in {tmp_path / 'python'}" in done.stdout


def test_a_part_that_fails_is_reported_and_keeps_none_from_running(tmp_path):
    fails_but_for_the_question = 'case "$1" in -c) echo 0;; *) echo broken; exit 3;; esac'
    out = tmp_path / "results"
    done = first_card("--dry", python=stub(tmp_path, fails_but_for_the_question), out=out)
    assert done.returncode == 1
    found = states(done.stdout)
    assert found["FAILED"][-2:] == ["GRPO, reckoned", "GRPO"]
    assert "benchmark" in found["FAILED"]
    text = out.read_text()
    assert "status 3 after" in text
    assert "skipped: the run wrote none" in text
    assert "## Summary" in text


HANGS_FOR_DOCTOR = (
    'case "$*" in -c*) echo 0;; *doctor) touch "$0.hangs"; sleep 60;; *) echo well;; esac'
)


def test_a_part_that_hangs_is_stopped_at_the_limit_and_the_others_run(tmp_path, monkeypatch):
    monkeypatch.setenv("LIMIT", "1s")
    out = tmp_path / "results"
    done = first_card("--dry", python=stub(tmp_path, HANGS_FOR_DOCTOR), out=out)
    assert states(done.stdout)["FAILED"] == ["alignkit doctor"]
    assert {"packages", "benchmark", "GRPO"} <= set(states(done.stdout)["passed"])
    assert "stopped after 1s\nstatus 124" in out.read_text()


def test_what_was_measured_stays_where_somebody_stops_it(tmp_path):
    tool, out = stub(tmp_path, HANGS_FOR_DOCTOR), tmp_path / "results"
    env = {**os.environ, "PYTHON": str(tool), "OUT": str(out), "TMPDIR": str(tmp_path)}
    script = subprocess.Popen(["bash", SCRIPT, "--dry"], env=env, stdout=subprocess.PIPE, text=True)
    for _ in range(600):
        if Path(f"{tool}.hangs").exists():
            break
        time.sleep(0.1)
    script.terminate()
    said, _ = script.communicate(timeout=40)
    assert script.returncode == 1
    assert states(said)["passed"] == ["packages"]
    assert out.read_text().endswith("stopped by a signal\n")
    assert not [*tmp_path.glob("first-card.*")]


@pytest.mark.parametrize("hardware", ONE_CARD)
def test_the_run_of_twenty_steps_composes_with_every_overlay_for_one_card(
    alignkit, tiny_folder, hardware
):
    laid = ["--with", OVERLAY, "--with", f"recipes/scale/{hardware}.toml"]
    key = ["-s", f"policy.path={tiny_folder}"]
    done = alignkit("run", "recipes/grpo.toml", *laid, *key, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "n_steps = 20 " in done.output
    assert f"# recipes/scale/{hardware}.toml:" in done.output


@pytest.mark.slow  # a minute or two: the commands themselves, on tiny sizes
def test_a_dry_run_passes_every_part_that_needs_no_card(tmp_path):
    import torch

    out = tmp_path / "results"
    done = first_card("--dry", python=sys.executable, out=out)
    assert done.returncode == 0, done.stdout + out.read_text()
    found = states(done.stdout)
    assert found["passed"][-5:] == [
        "benchmark", "random weights", "GRPO, reckoned", "GRPO", "GRPO, metrics"
    ]  # fmt: skip
    if not torch.cuda.is_available():
        assert "tests on the card" in found["skipped"]
        assert "skipped  tests on the card: no CUDA device" in done.stdout
    text = out.read_text()
    assert '"train/rollout_logprob_gap"' in text
    assert "memory, at most:" in text
    assert text.count('"step": 2') == 1
