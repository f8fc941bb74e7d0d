"""Links in somebody else's directory: nothing outside it is written or deleted."""

import json
import shutil

import pytest
from click.testing import CliRunner

from alignkit.cli import main
from alignkit.errors import AlignkitError
from alignkit.lifecycle.files import write_whole
from alignkit.lifecycle.resume_point import refuse_links
from alignkit.testing import run_cli


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "theirs"
    (folder / "eval/set").mkdir(parents=True)
    (folder / "rollouts").mkdir()
    rows = [{"step": i, "time": i / 2, "train/loss": 1.0} for i in range(4)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "manifest.json").write_text('{"status": "failed"}')
    (folder / "recipe.toml").write_text('use = "sft"\n')
    return folder


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/step_000009.jsonl").write_text("precious")
    (tmp_path / "mine/.bashrc").write_text("precious")
    return tmp_path / "mine"


def report(run_dir, *words):
    done = CliRunner().invoke(main, ["report", str(run_dir), *words])
    assert "Traceback" not in done.output
    return done


@pytest.mark.parametrize("name", [".report.html.part", ".report.html.partial", "report.html"])
def test_a_page_overwrites_nothing_through_a_link(run_dir, mine, name):
    (run_dir / name).symlink_to(mine / ".bashrc")
    assert report(run_dir).exit_code == 0
    assert (mine / ".bashrc").read_text() == "precious"
    assert (run_dir / "report.html").read_text().startswith("<!")
    assert not (run_dir / "report.html").is_symlink()


@pytest.mark.parametrize("name", ["report.csv", "report.summary.csv", "report.png.d"])
def test_tables_and_charts_overwrite_nothing_through_a_link(run_dir, mine, name):
    pytest.importorskip("matplotlib")
    (run_dir / name).symlink_to(mine if name.endswith(".d") else mine / ".bashrc")
    report(run_dir, "--csv", "--png")
    assert (mine / ".bashrc").read_text() == "precious"
    assert sorted(p.name for p in mine.iterdir()) == [".bashrc", "step_000009.jsonl"]


def test_a_file_written_whole_replaces_a_link(tmp_path, mine):
    for name in ("a.json", ".b.json.partial"):
        (tmp_path / name).symlink_to(mine / ".bashrc")
    write_whole(tmp_path / "a.json", "new")
    write_whole(tmp_path / "b.json", "new")
    assert (mine / ".bashrc").read_text() == "precious"
    assert [(tmp_path / n).read_text() for n in ("a.json", "b.json")] == ["new", "new"]


NAMES = ("eval", "rollouts", "final", "checkpoints", "metrics.jsonl", ".lock", ".trackers")


@pytest.mark.parametrize("name", [*NAMES, "eval/set", "rollouts/step_000001.jsonl"])
def test_resume_refuses_a_link_before_it_touches_anything(run_dir, mine, name):
    place = run_dir / name
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.symlink_to(mine if "." not in name.lstrip(".") else mine / ".bashrc")
    with pytest.raises(AlignkitError, match=f"{name} is a symbolic link"):
        refuse_links(run_dir)
    done = CliRunner().invoke(main, ["resume", str(run_dir)])
    assert done.exit_code == 2
    assert f"{name} is a symbolic link" in done.output
    assert (mine / "step_000009.jsonl").read_text() == (mine / ".bashrc").read_text() == "precious"


@pytest.mark.parametrize(
    "words",
    [
        ["run", "a.toml"], ["run", "alignkit:recipes/sft.toml", "--with", "a.toml"],
        ["sweep", "a.toml"], ["migrate", "a.toml"], ["explain", "a.toml"],
        ["run", "alignkit:recipes/sft.toml", "-p", "a.py"], ["check", "a.py"],
        ["package", "a.py"], ["grade", "a.toml", "--reward", "r1_zero", "--out", "out"],
        ["show", "a.py"], ["report", "a.py"], ["resume", "a.py"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_links_in_a_circle_are_said_in_one_line(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    for name, other in (("a.toml", "b.toml"), ("b.toml", "a.toml"), ("a.py", "a.py")):
        (tmp_path / name).symlink_to(other)
    done = run_cli(*words)
    assert done.status in (1, 2), done.stdout
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"a.toml", "b.toml", "a.py"}
