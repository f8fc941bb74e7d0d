"""Real signals and time limits, sent to real commands."""

import json
import signal

import pytest


def end(killer, use, name, number, when):
    """Send a signal as soon as the run directory holds the path ``when``."""
    whole, _, _ = killer.undisturbed(use)
    out = killer.place / f"{use}-{name}"
    answer = killer.go(use, out, when=str(out / when), signal=number)
    return whole, out, answer["code"]


@pytest.mark.parametrize(
    ("name", "status", "state"),
    [
        ("SIGTERM", 143, "interrupted"),
        pytest.param("SIGINT", 130, "interrupted", marks=pytest.mark.slow),
        pytest.param("SIGUSR1", 75, "stopped", marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_ends_with_its_status(killer, name, status, state):
    whole, out, code = end(killer, "sft", name, getattr(signal, name), "checkpoints/step_000002")
    log = out.with_suffix(".log").read_text()
    assert code == status, log
    assert json.loads((out / "manifest.json").read_text())["status"] == state
    assert f"{state} by {name}; go on with: alignkit resume {out.name}" in log
    assert "saved after step" in log
    assert killer.go("sft", out)["code"] == 0
    assert killer.left(out) == whole
    assert killer.go("sft", out)["code"] == 0
    assert "is finished; there is nothing to do" in out.with_suffix(".log").read_text()


def test_a_time_limit_stops_a_run_to_be_resumed(killer):
    out = killer.place / "sft-limit"
    words = ["run", killer.recipe("sft"), "--out", out, "-s", "n_steps=5000"]
    limit = ["-s", "checkpoint.stop_after='2s'", "-s", "checkpoint.every=0"]
    answer = killer.ask([*words, *limit], out.with_suffix(".log"))
    log = out.with_suffix(".log").read_text()
    assert answer["code"] == 75, log
    assert "stopped by stop_after = 2s; go on with: alignkit resume sft-limit" in log
    assert json.loads((out / "manifest.json").read_text())["status"] == "stopped"
    assert (out / "final/model.safetensors").is_file()
    steps = len((out / "metrics.jsonl").read_text().splitlines())
    assert killer.go("sft", out)["code"] == 75  # the limit counts anew
    assert len((out / "metrics.jsonl").read_text().splitlines()) >= steps


@pytest.mark.slow
def test_a_sweep_that_is_told_to_end_saves_its_run_and_goes_on(killer):
    when = "tuned/seed_own/checkpoints/step_000001"
    whole, out, code = end(killer, "sweep", "SIGTERM", signal.SIGTERM, when)
    log = out.with_suffix(".log").read_text()
    assert code == 143, log
    assert "interrupted by SIGTERM; go on with the same command" in log
    assert killer.go("sweep", out)["code"] == 0
    assert killer.left(out) == whole
    manifests = [json.loads(p.read_text()) for p in out.glob("*/seed_*/manifest.json")]
    assert sum("resumes" in m for m in manifests) == 1
    assert not (out / ".aside").exists()
