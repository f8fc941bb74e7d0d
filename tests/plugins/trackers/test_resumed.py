"""A tracker of a resumed run is told no row twice, and keeps its run's identity."""

import json

import pytest

from alignkit.execution import Run
from alignkit.lifecycle.checkpoints import Mark
from alignkit.lifecycle.resume_point import Start, rewind
from alignkit_trackers import Jsonl, Tensorboard, Wandb


def lives(folder, make, steps=((0, 1, 2), (1, 2, 3))):
    """Log the steps, then those of the resumed run, which begins behind its checkpoint."""
    run = Run(folder, {"n": 1})
    run.attach([make()])
    sizes = {}
    for step in steps[0]:
        run.log(step, {"train/loss": float(step)})
        sizes[step] = run.logged_bytes()
    run.close("failed")
    last = steps[1][0] - 1
    start = Start(folder / "c", Mark(last, 0, sizes[last], 1.0))
    rewind(folder, start)
    again = Run(folder, {"n": 1}, start)
    again.attach([make()])
    for step in steps[1]:
        again.log(step, {"train/loss": float(step)})
    again.close("done")


def test_the_shared_file_holds_each_row_once(tmp_path):
    shared = tmp_path / "all.jsonl"
    for name in ("seed_0", "other/seed_0"):  # two runs of one name
        (tmp_path / name).mkdir(parents=True)
        lives(tmp_path / name, Jsonl(path=shared).build)
    rows = [json.loads(line) for line in shared.read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 0, 1, 2, 3]
    own = (tmp_path / "seed_0/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in own] == [0, 1, 2, 3]


def test_tensorboard_shows_each_step_once(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lives(tmp_path, Tensorboard().build)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [0, 1, 2, 3]


def test_wandb_goes_on_with_the_same_run(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    opened, logged = [], []

    class Opened:
        offline, disabled, dir = True, False, str(tmp_path / "w")

        def define_metric(self, *args, **keys): ...

        def finish(self, *, exit_code): ...

        def log(self, row):
            logged.append(row["train_step"])

    def init(**keys):
        opened.append((keys["id"], keys["resume"]))
        return Opened()

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr("alignkit_trackers.wandb_run.steps_on_disk", lambda folder: {*logged})
    lives(tmp_path, Wandb(mode="offline").build)
    assert logged == [0, 1, 2, 3]
    assert opened[0] == opened[1]
    assert opened[0][1] == "allow"
    (tmp_path / "new").mkdir()
    lives(tmp_path / "new", Wandb(mode="offline").build)
    assert opened[2][0] != opened[0][0]
