"""Runs on a disk that takes nothing any more, such as an archive: looked at, not changed."""

import shutil
import subprocess

import pytest
from click.testing import CliRunner

from alignkit.cli import main


@pytest.fixture
def archive(runs, sft, disk):
    """A folder that nothing can be written to, with a run that is done and one that is not."""
    runs.start(sft, out="done")
    shutil.copytree(runs.folder / "done", runs.folder / "half")
    runs.unfinish("half")
    place = disk("archive", 2**26)
    for name in ("done", "half"):
        shutil.move(runs.folder / name, place / name)
    (runs.folder / "sweep.toml").write_text("recipe = 'r.toml'\nseeds = [1]\n")
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    yield place
    subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)


def told(*words):
    done = CliRunner().invoke(main, list(words))
    assert "Traceback" not in done.output
    return done.exit_code, done.output.strip()


def test_what_would_be_written_is_refused_in_one_line_that_says_what_to_do(archive):
    before = sorted(p for p in archive.rglob("*"))
    elsewhere = "; --out names another file"
    cases = [
        (("report", "archive/done"), "cannot write in archive/done", elsewhere),
        (("report", "archive"), "cannot write in archive", elsewhere),
        (("report", "archive", "--csv", "--png"), "cannot write in archive", elsewhere),
        (("report", "archive", "--out", "archive/x.html"), "cannot write in archive", elsewhere),
        (("resume", "archive/half"), "cannot write in archive/half", ""),
        (("resume", "archive/done", "-s", "n_steps=9"), "cannot write in archive/done", ""),
        (("run", "r.toml", "--out", "archive/new"), "cannot make archive/new", ""),
        (("sweep", "sweep.toml", "--out", "archive/new"), "cannot make archive/new", ""),
        (("sweep", "sweep.toml", "--out", "archive"), "cannot write in archive", ""),
    ]
    for words, what, remedy in cases:
        status, said = told(*words)
        assert said == f"{what}: Read-only file system{remedy}", words
        assert status == 2, words
    assert sorted(p for p in archive.rglob("*")) == before


def test_what_only_reads_works(archive, runs):
    assert told("show", "archive/done")[0] == 0
    assert told("show", "archive/half", "--brief")[0] == 0
    status, said = told("resume", "archive/done")
    assert (status, said) == (0, "archive/done is finished; there is nothing to do")
    status, said = told("report", "archive", "--table", "--csv", "--out", "page.html")
    assert status == 0
    assert "last, step 4" in said
    made = {p.name for p in runs.folder.iterdir() if p.name.startswith("page")}
    assert made == {"page.html", "page.csv", "page.summary.csv"}
