"""Checkpoint folders: whole or not there, found, kept and tidied."""

import json
import os

import pytest

from alignkit.errors import AlignkitError
from alignkit.lifecycle.checkpoints import Mark, Store, damage


def write(store, step, part=0, text=b"weights", score=None, **options):
    mark = Mark(step, part, 10 * step, 1.5 * step, score)
    return store.write(mark, {"w": lambda path: path.write_bytes(text)}, need=len(text), **options)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "checkpoints")


def test_the_newest_checkpoint_is_found_with_its_mark(store):
    for step, part in ((9, 0), (10, 0), (10, 2), (10, 12), (2, 3)):
        write(store, step, part)
    path, mark = store.newest(pytest.fail)
    assert (mark.step, mark.part, mark.metrics_bytes) == (10, 12, 100)
    assert next(p.name for p in store.paths()) == "step_000002_part_0003"
    assert (path / "w").read_bytes() == b"weights"
    assert Store(store.folder / "none").newest(pytest.fail) is None


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "harm", "said"),
    [
        ("w", flip, "w does not have the sum it was written with"),
        ("w", cut, "w has 6 bytes, was written with 7"),
        ("w", os.unlink, "w cannot be read (No such file or directory)"),
        ("manifest.json", halve, "manifest.json cannot be read"),
        ("manifest.json", os.unlink, "manifest.json cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(store, name, harm, said):
    write(store, 1)
    harm(write(store, 2) / name)
    warnings = []
    path, mark = store.newest(warnings.append)
    assert (path.name, mark.step) == ("step_000001", 1)
    (warning,) = warnings
    assert "step_000002 is damaged" in warning
    assert said in warning
    assert [p.name for p in store.paths()] == ["step_000001"]  # the other is kept for study
    assert (store.folder / "step_000002.damaged").is_dir()


def test_every_byte_of_the_manifest_counts(store):
    path = write(store, 3)
    whole = (path / "manifest.json").read_bytes()
    for at in range(len(whole)):
        (path / "manifest.json").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        if damage(path) == "":  # a space became "!" or a letter of a key changed: never
            assert json.loads((path / "manifest.json").read_bytes()) == json.loads(whole)


def test_without_a_whole_checkpoint_nothing_is_begun_anew_unasked(store):
    flip(write(store, 1) / "w")
    with pytest.raises(AlignkitError, match=r"no checkpoint in .* is whole"):
        store.newest(lambda text: None)


def test_the_last_and_the_best_are_kept(store):
    for step, score in enumerate([0.5, 0.9, 0.7, None, 0.1], 1):
        write(store, step, score=score)
    assert store.ranks(0.8, 2, "max")
    assert not store.ranks(0.6, 2, "max")
    assert store.ranks(0.2, 2, "min")
    store.prune(1, 2, "max")
    assert [p.name for p in store.paths()] == ["step_000002", "step_000003", "step_000005"]
    store.prune(1, 1, "min")
    assert [p.name for p in store.paths()] == ["step_000005"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_others(store):
    write(store, 1)

    def full(path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(AlignkitError) as error:
        store.write(Mark(2, 0, 0, 0.0), {"w": full}, need=3 * 2**30)
    assert "No space left on device" in str(error.value)
    assert "3.0 GiB" in str(error.value)
    assert sorted(os.listdir(store.folder)) == ["step_000001"]


def test_files_are_as_open_as_the_user_s_are_whoever_wrote_them(store):
    def privately(path):
        aside = path.with_name("aside")
        aside.touch(mode=0o600)
        aside.rename(path)

    folder = store.write(Mark(1, 0, 0, 0.0), {"w": privately}, need=0)
    (folder.parent / "plain").touch()
    assert (folder / "w").stat().st_mode == (folder.parent / "plain").stat().st_mode


def test_what_a_killed_process_left_is_tidied(store):
    write(store, 1)
    for name in (".step_000002.partial", ".step_000001.trash"):
        (store.folder / name).mkdir()
    store.tidy()
    assert os.listdir(store.folder) == ["step_000001"]
