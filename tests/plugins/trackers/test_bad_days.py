"""Folders that are replaced, processes that are killed or stopped: no tracker ends a run."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from alignkit.engine.asking import AskedTracker
from alignkit.execution import Run
from alignkit_trackers import Console, Jsonl, Tensorboard

WANDB = """
import os, pathlib, signal, sys
from alignkit.engine.asking import AskedTracker
from alignkit.execution import Run
from alignkit_trackers import Wandb, wandb_service
wandb_service.STOPPED_FOR = 1.0
run = Run(pathlib.Path(sys.argv[1]), {"n": 1})
run.attach([AskedTracker(Wandb(mode="offline").build())])
for step in range(8):
    if step == int(sys.argv[3]):
        for number, _ in wandb_service._children():
            os.kill(number, getattr(signal, sys.argv[2]))
    run.log(step, {"train/loss": float(step)})
run.close("done")
print(len(run.notes))
"""


def rows(folder):
    return [
        json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]


def gone(place):
    shutil.rmtree(place)


def replaced(place):
    shutil.rmtree(place)
    place.write_text("somebody's")


@pytest.mark.parametrize("harm", [gone, replaced])
def test_a_folder_of_event_files_that_is_lost_is_said_once(tmp_path, harm, capfd):
    run = Run(tmp_path, {"n": 1})
    run.attach([AskedTracker(Tensorboard().build())])
    run.log(0, {"train/loss": 1.0})
    time.sleep(0.3)  # the thread that writes has written
    harm(tmp_path / "tensorboard")
    for step in range(1, 400):
        run.log(step, {"train/loss": 1.0})
    run.close("done")
    assert rows(tmp_path) == list(range(400))
    [note] = run.notes
    assert note.startswith("warning: tracker is told nothing more, since it raised ")
    said = capfd.readouterr()
    assert said.out.count("told nothing more") == 1
    assert "Traceback" not in said.out + said.err


@pytest.mark.parametrize("at", [4, pytest.param(7, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_a_process_of_wandb_that_is_lost_is_said_once(tmp_path, name, at):
    pytest.importorskip("wandb")
    began = time.monotonic()
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}  # its own service
    done = subprocess.run(
        [sys.executable, "-c", WANDB, str(tmp_path), name, str(at)], check=False, timeout=120,
        capture_output=True, text=True, env={**clean, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n1\n")
    assert done.stdout.count("tracker is told nothing more, since it raised ") == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert rows(tmp_path) == list(range(8))
    assert time.monotonic() - began < 60  # the upload has 600 s


def test_a_tracker_that_is_let_go_gives_the_printing_back(tmp_path, capsys, monkeypatch):
    class Owner:
        def start(self, run):
            run.printer = self.fail

        def log(self, step, metrics):
            self.fail("")

        def fail(self, text):
            raise OSError(5, "the terminal is gone")

        def close(self, status):
            self.fail("")

    run = Run(tmp_path, {"n": 1})
    others = [AskedTracker(Jsonl(path=tmp_path / "all.jsonl").build()), AskedTracker(Owner())]
    run.attach([*others, AskedTracker(Console().build())])
    run.log(0, {"train/loss": 1.0})
    run.close("done")
    said = capsys.readouterr().out
    assert said.count("told nothing more, since it raised OSError: [Errno 5]") == 1
    assert "done: step 0" in said
    assert rows(tmp_path) == [0]
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 1
