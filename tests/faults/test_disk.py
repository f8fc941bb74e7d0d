"""Disks that fill up or turn read-only, files that rot, two processes in one directory."""

import errno
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from alignkit.cli import main
from alignkit.errors import AlignkitError, RunFailed
from alignkit.execution import Run
from alignkit.lifecycle.checkpoints import damage
from alignkit.lifecycle.full import no_room, no_room_for_checkpoint, remedy


def checkpoints(folder):
    return sorted((folder / "checkpoints").glob("step_*"))


def size(folder):
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def calm(runs):
    """The run as it is without a fault."""
    run = runs.start(out="calm")
    assert [p.name for p in checkpoints(run.dir)] == [f"step_00000{i}" for i in (1, 2, 3, 4)]
    return run


def test_a_full_disk_stops_the_run_with_its_checkpoints_whole_and_it_goes_on(runs, calm, disk):
    one = size(checkpoints(calm.dir)[0])
    place = disk("small", int(2.6 * one))  # room for two
    said = r"cannot write a checkpoint to small/run/checkpoints: No space left on device; it takes "
    said += r"[\d.]+ [KM]iB, and [\d.]+ \w+ are free there. What was saved before is whole"
    with pytest.raises(RunFailed, match=said) as error:
        runs.start(out="small/run")
    assert "Traceback" not in str(error.value)
    kept = checkpoints(place / "run")
    assert [p.name for p in kept] == ["step_000001", "step_000002"]
    assert [damage(p) for p in kept] == ["", ""]
    disk("small", 20 * one)
    runs.resume("small/run")
    assert runs.weights("small/run") == runs.weights("calm")
    assert [r["step"] for r in runs.rows("small/run")] == [r["step"] for r in runs.rows("calm")]


def test_a_disk_too_full_for_the_final_model_stops_the_run_and_it_goes_on(runs, calm, disk):
    one = size(checkpoints(calm.dir)[0])
    final = size(calm.dir / "final")
    place = disk("small", size(calm.dir) - final // 2)
    said = r"cannot write to small/run: No space left on device; [\d,]+ bytes are free there"
    with pytest.raises(RunFailed, match=said) as error:
        runs.start(out="small/run")
    assert "Traceback" not in str(error.value)
    assert not (place / "run" / "final").exists()
    disk("small", 20 * one)
    runs.resume("small/run")
    assert runs.weights("small/run") == runs.weights("calm")


def test_a_run_without_checkpoints_that_has_no_room_for_its_model_goes_on_from_its_end(
    runs, sft, calm, disk, monkeypatch
):
    """The training is over when ``final/`` is written: none of it is done again."""
    from alignkit_hf.policy.causal import CausalPolicy

    place = disk("small", 20 * size(checkpoints(calm.dir)[0]))
    save = CausalPolicy.save

    def fill(self, folder):
        used = size(place)
        disk("small", used + size(calm.dir / "final") // 2)
        save(self, folder)

    monkeypatch.setattr(CausalPolicy, "save", fill)
    with pytest.raises(RunFailed, match="free some, then: alignkit resume small/run"):
        runs.start(sft, "checkpoint.every=0", out="small/run")
    assert [p.name for p in checkpoints(place / "run")] == ["step_000004"]
    assert damage(checkpoints(place / "run")[0]) == ""
    before = (place / "run/metrics.jsonl").read_bytes()
    disk("small", 20 * size(calm.dir))
    monkeypatch.setattr(CausalPolicy, "save", save)
    runs.resume("small/run")
    assert runs.weights("small/run") == runs.weights("calm")
    assert (place / "run/metrics.jsonl").read_bytes() == before


def test_a_run_without_checkpoints_leaves_none(runs, sft):
    run = runs.start(sft, "checkpoint.every=0")
    assert not (run.dir / "checkpoints").exists()


def test_without_room_for_a_checkpoint_the_model_is_written_all_the_same(runs, sft, calm, disk):
    final, one = size(calm.dir / "final"), size(checkpoints(calm.dir)[0])
    place = disk("small", final + one // 2)
    runs.start(sft, "checkpoint.every=0", out="small/run")
    assert runs.weights("small/run") == runs.weights("calm")
    assert checkpoints(place / "run") == []


def test_a_disk_too_full_for_the_best_model_says_what_a_checkpoint_takes(runs, sft, calm, disk):
    one = size(checkpoints(calm.dir)[0])
    evaluated = ("checkpoint.every=0", "checkpoint.keep_best=1", "checkpoint.metric=train/loss")
    place = disk("small", int(1.1 * one))  # room for the checkpoint, not for the model beside it
    said = r"cannot write a checkpoint to small/run/checkpoints: No space left on device; it takes "
    with pytest.raises(RunFailed, match=said) as error:
        runs.start(sft, *evaluated, out="small/run")
    assert "Traceback" not in str(error.value)
    assert checkpoints(place / "run") == []


def test_a_disk_too_full_for_a_row_of_metrics_stops_the_run_without_a_traceback(runs, disk):
    place = disk("small", 2**21)

    def fill(path):
        with path.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(1024)):
                    pass
            except OSError:
                pass

    def log(self, step, metrics, before=Run.log):
        if step == 2:
            fill(place / "somebody_elses")
            metrics = {**metrics, **{f"train/x{i}": 0.0 for i in range(400)}}  # more than a page
        before(self, step, metrics)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "log", log)
        said = r"cannot write to small/run: No space left on device; [\d,]+ bytes are free there"
        with pytest.raises(RunFailed, match=said) as error:
            runs.start(out="small/run")
    assert "free some, then: alignkit resume small/run" in str(error.value)
    assert "Traceback" not in str(error.value)
    (place / "somebody_elses").unlink()
    disk("small", 2**24)
    runs.resume("small/run")
    assert [r["step"] for r in runs.rows("small/run")] == [0, 1, 2, 3, 4]


def test_a_read_only_directory_is_named(runs, disk):
    place = disk("locked", 2**20)
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    with pytest.raises(AlignkitError, match="cannot make locked/run: Read-only file system"):
        runs.start(out="locked/run")
    subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
    (place / "run").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    with pytest.raises(AlignkitError, match="cannot write in locked/run: Read-only file system"):
        runs.start(out="locked/run")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(flip, "does not have the sum it was written with"), (cut, r"bytes, was written with")],
)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(runs, calm, capsys, spoil, said):
    wanted = runs.weights("calm")
    runs.unfinish("calm")
    *_, before, last = checkpoints(calm.dir)
    victim = max(last.iterdir(), key=lambda p: p.stat().st_size)
    spoil(victim)
    runs.resume("calm")
    out = capsys.readouterr().out
    assert f"warning: calm/checkpoints/{last.name} is damaged: {victim.name}" in out
    assert said in out
    assert f"going on from {before.name}" in out
    assert runs.weights("calm") == wanted
    assert (last.parent / f"{last.name}.damaged").is_dir()


def test_without_a_whole_checkpoint_nothing_is_guessed(runs, calm):
    runs.unfinish("calm")
    for path in checkpoints(calm.dir):
        flip(max(path.iterdir(), key=lambda p: p.stat().st_size))
    with pytest.raises(AlignkitError, match="no checkpoint in calm/checkpoints is whole"):
        runs.resume("calm")


def test_a_second_process_is_kept_out(runs, calm):
    runs.unfinish("calm")
    holder = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys, pathlib\nfrom alignkit.lifecycle.lock import locked\n"
            f"with locked(pathlib.Path({str(calm.dir)!r})):\n    print('in', flush=True)\n"
            "    sys.stdin.read()",
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == b"in\n"
        before = sorted(p.name for p in calm.dir.iterdir())
        with pytest.raises(AlignkitError, match=rf"calm is in use by process {holder.pid} on "):
            runs.resume("calm")
        assert sorted(p.name for p in calm.dir.iterdir()) == before
        assert json.loads((calm.dir / "manifest.json").read_text())["status"] == "interrupted"
    finally:
        holder.communicate()
    runs.resume("calm")


@pytest.fixture
def read_only(disk, monkeypatch):
    """Both the home folder and the working directory are on a disk that takes nothing."""
    place = disk("locked", 2**20)
    (place / "home").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    monkeypatch.setenv("HOME", str(place / "home"))
    monkeypatch.chdir(place)
    return place


RECIPE = str(Path(__file__).resolve().parents[2] / "recipes/sft.toml")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["list-plugins"], 0),
        (["describe", "loss_type", "grpo_clip"], 0),
        (["explain", RECIPE], 0),
        (["run", RECIPE, "--dry-run"], 0),
        (["run", RECIPE], 2),
        (["init", "new"], 1),
        (["new-plugin", "x", "--kind", "loss_type"], 2),
    ],
)
def test_a_read_only_home_and_working_directory_are_said_in_one_line(read_only, words, status):
    done = CliRunner().invoke(main, words)
    assert done.exit_code == status, done.output
    assert "Traceback" not in done.output
    if status:
        [line] = done.output.strip().splitlines()
        assert "Read-only file system" in line


@pytest.mark.slow
def test_a_run_needs_no_home_that_can_be_written(runs, sft, disk):
    home = disk("home", 2**20)
    subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
    (runs.folder / "r.toml").write_text(sft.format(model=runs.model))
    done = subprocess.run(
        [sys.executable, "-m", "alignkit", "run", "r.toml", "--out", "run"],
        cwd=runs.folder, env={**os.environ, "HOME": str(home)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (runs.folder / "run/final/model.safetensors").is_file()


def test_a_limit_on_file_sizes_is_named_and_not_what_is_free(runs, calm):
    biggest = max(f.stat().st_size for f in checkpoints(calm.dir)[0].iterdir())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (biggest - 1024, before[1]))
    try:
        with pytest.raises(RunFailed) as error:
            runs.start(out="limited")
        failed = error.value
        said = str(no_room(runs.folder, OSError(errno.EFBIG, "File too large")))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert re.search(r"no file may have more than [\d.]+ [KM]iB here \(ulimit -f\)", str(failed))
    assert f"no file may have more than {biggest - 1024:,} bytes here" in said
    assert "free" not in f"{failed} {said}"
    runs.resume("limited")
    assert runs.weights("limited") == runs.weights("calm")


def test_a_disk_that_takes_no_more_files_is_not_said_to_have_bytes_free(disk):
    place = disk("small", "1m,nr_inodes=4")

    def fill():
        for number in range(9):
            (place / str(number)).touch()

    with pytest.raises(OSError, match="No space left") as error:
        fill()
    for left in (0, 1):  # what a checkpoint had begun is taken away first
        for said in (
            no_room(place, error.value),
            no_room_for_checkpoint(place / "checkpoints", error.value, 5),
        ):
            assert f"room for {left} more files is left there, of whatever size (df -i)" in said
            assert "free" not in said
        (place / "0").unlink(missing_ok=True)
    assert remedy(error.value) == "free some"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_what_may_not_be_written_is_not_said_to_be_full(tmp_path, number):
    error = OSError(number, os.strerror(number))
    for said in (no_room(tmp_path, error), no_room_for_checkpoint(tmp_path, error, 5)):
        assert f": {os.strerror(number)}. What was saved before is whole" in said
    assert remedy(error) == "make it writable"
