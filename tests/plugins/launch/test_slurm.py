"""A real SLURM of one node: a job is told to stop, queued again, and ends as if undisturbed."""

import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow
SMALL = (
    "n_steps=8", "rollout_batch_size=16", "train_batch_size=16", "group_size=4",
    "rollout.max_tokens=24", "eval.n=4", "seed=3",
)  # fmt: skip
MINUTES = 2


def alignkit(*words, folder, environment):
    command = [sys.executable, "-m", "alignkit", *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_for(what, seen, log):
    end = time.monotonic() + 60 * MINUTES
    while not seen():
        assert time.monotonic() < end, f"{what} did not come:\n{log.read_text()[-3000:]}"
        time.sleep(0.2)


def test_a_job_that_is_stopped_and_queued_again_ends_as_an_undisturbed_run(
    tmp_path, slurm, lasting_rows
):
    settings = [word for value in SMALL for word in ("-s", value)]
    recipe = ("alignkit:recipes/grpo.toml", *settings)
    alignkit("run", *recipe, "--out", "undisturbed", folder=tmp_path, environment=slurm)
    said = alignkit(
        "launch", *recipe, "--out", "job", "--cpus", "2", "--submit", "--yes",
        folder=tmp_path, environment=slurm,
    )  # fmt: skip
    number = said.rsplit("job ", 1)[1].split(":")[0]
    run, log = tmp_path / "job", tmp_path / "job.slurm.log"
    log.touch()
    wait_for("the second step", lambda: len(lasting_rows(run)) >= 2, log)
    subprocess.run(["scancel", "--signal=USR1", number], env=slurm, check=True)

    def state():
        found = subprocess.run(
            ["scontrol", "show", "job", number], env=slurm, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        return dict(word.split("=", 1) for word in found.stdout.split() if "=" in word)

    wait_for("the end", lambda: state()["JobState"] in ("COMPLETED", "FAILED"), log)
    assert state()["JobState"] == "COMPLETED", log.read_text()
    assert state()["Restarts"] == "1"
    assert "stopped by SIGUSR1" in log.read_text()
    assert lasting_rows(run) == lasting_rows(tmp_path / "undisturbed")
    ours, theirs = (r / "final" / "model.safetensors" for r in (run, tmp_path / "undisturbed"))
    assert ours.read_bytes() == theirs.read_bytes()
