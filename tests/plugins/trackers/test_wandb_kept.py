"""A row counts as W&B's only once it is in a file of its; its environment is heeded or refused."""

import json
import os
import signal
import struct
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignkit.errors import AlignkitError
from alignkit.execution import Run
from alignkit.lifecycle.checkpoints import Mark
from alignkit.lifecycle.resume_point import Start
from alignkit_trackers import Wandb
from alignkit_trackers.wandb_files import BLOCK, records, steps_on_disk

LIFE = """
import os, pathlib, signal, sys, time
from alignkit.execution import Run
from alignkit_trackers import Wandb
run = Run(pathlib.Path(sys.argv[1]), {"n": 1})
run.attach([Wandb(mode="offline").build()])
for step in range(7):
    run.log(step, {"train/loss": float(step), "eval/reward": 0.5})
if sys.argv[2] == "both":  # wandb's own process first, as when a machine goes down
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        if stat.read_text().rpartition(")")[2].split()[1] == str(os.getpid()):
            os.kill(int(stat.parent.name), signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def quiet(monkeypatch):
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_RUN_ID", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    yield
    wandb.teardown()  # it keeps what it read from the environment of the first run in a process


def fresh(folder, *, resumed=False):
    return SimpleNamespace(dir=folder, resumed=resumed)


def resumed(folder, first_step):
    size = (folder / "metrics.jsonl").stat().st_size
    return Run(folder, {"n": 1}, Start(folder / "c", Mark(first_step - 1, 0, size, 1.0)))


@pytest.mark.parametrize("killed", ["both", "alignkit alone"])
def test_each_row_is_there_once_after_a_process_was_killed(killed, tmp_path, quiet):
    import wandb

    done = subprocess.run(
        [sys.executable, "-c", LIFE, str(tmp_path), killed], start_new_session=True, check=False,
        capture_output=True, env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    run = resumed(tmp_path, 7)
    run.attach([Wandb(mode="offline").build()])
    run.log(7, {"train/loss": 7.0})
    run.close("done")
    wandb.teardown()
    assert steps_on_disk(tmp_path) == set(range(8))
    assert sorted(rows_in(tmp_path)) == list(range(8))


def rows_in(folder):
    """Return the steps of the rows in all files, as often as they stand there."""
    for file in folder.glob("wandb/*run-*/*.wandb"):
        for record in records(file.read_bytes()):
            yield from _steps(record)


def _steps(record):
    from wandb.proto.wandb_internal_pb2 import Record

    parsed = Record()
    parsed.ParseFromString(record)
    items = {i.key or "/".join(i.nested_key): i.value_json for i in parsed.history.item}
    if "train/loss" in items:
        yield json.loads(items["train_step"])


def test_a_disabled_run_logs_nothing_and_says_so(tmp_path, quiet, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run = Run(tmp_path, {"n": 1})
    run.attach([Wandb().build()])
    run.log(0, {"train/loss": 1.0})
    run.rows(0, "rollouts", [{"response": "a"}])
    run.close("done")
    assert "wandb: disabled by WANDB_MODE; nothing is logged there" in capsys.readouterr().out
    assert not list(tmp_path.glob("wandb/**/*.wandb"))


def test_a_mode_that_wandb_does_not_know_is_refused_beforehand(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "bogus")
    [(_, said)] = Wandb().check({})
    assert said.startswith("WANDB_MODE is 'bogus'; it may be online, offline, disabled")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert list(Wandb().check({})) == []


def test_a_run_id_of_the_environment_is_taken_and_kept(tmp_path, quiet, monkeypatch):
    from alignkit_trackers.wandb_run import _id

    monkeypatch.setenv("WANDB_RUN_ID", "my-run-7")
    assert _id(fresh(tmp_path)) == "my-run-7"
    monkeypatch.setenv("WANDB_RUN_ID", "another")
    assert _id(fresh(tmp_path, resumed=True)) == "my-run-7"


@pytest.mark.parametrize("bad", ["../up", "a/b", "n" * 250, "\x1b[2J", "a\nb"])
def test_a_run_id_that_is_no_name_is_refused(bad, tmp_path, quiet, monkeypatch):
    from alignkit_trackers.wandb_run import _id

    monkeypatch.setenv("WANDB_RUN_ID", bad)
    [(_, said)] = Wandb().check({})
    assert "cannot be the name of a W&B run (WANDB_RUN_ID)" in said
    with pytest.raises(AlignkitError, match="WANDB_RUN_ID"):
        _id(fresh(tmp_path))


def written(parts):
    """Return records in the log format, as its description says."""
    data = bytearray(b":W&B\xe1\xbe\x00")
    for part in parts:
        left, first = part, True
        while first or left:
            if (room := BLOCK - len(data) % BLOCK) < 7:
                data += bytes(room)
                room = BLOCK
            piece, left = left[: room - 7], left[room - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}
            data += struct.pack("<IHB", 0, len(piece), kind[first, not left]) + piece
            first = False
    return bytes(data)


SIZES = st.lists(st.integers(1, 3 * BLOCK), max_size=6)


@given(SIZES.map(lambda sizes: [bytes([n % 251]) * n for n in sizes]), st.data())
def test_records_are_read_up_to_where_a_file_breaks_off(parts, data):
    whole = written(parts)
    assert list(records(whole)) == parts
    cut = data.draw(st.integers(0, len(whole)))
    found = list(records(whole[:cut]))
    assert found == parts[: len(found)]
