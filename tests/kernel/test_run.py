"""The run directory: when it is made, what it holds, how it tells success from failure."""

import json

import pytest
import tomli

from alignkit import recipe
from alignkit.errors import AlignkitError, RecipeError, RunFailed
from alignkit.execution import Run, execute

TEXT = 'use = "toy"\n[loss]\nuse = "clip"\n'


@pytest.fixture
def plan(tmp_path, monkeypatch, registry):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.toml").write_text(TEXT)
    return lambda *overrides: recipe.load(tmp_path / "toy.toml", registry, (), overrides)


def start(node, tmp_path, out="out"):
    return execute(node, tmp_path / "toy.toml", tmp_path / out, ["alignkit", "run"])


def test_a_run_directory_holds_recipe_manifest_metrics_and_rows(plan, tmp_path):
    run = start(plan("seed=3"), tmp_path)
    assert tomli.loads((run.dir / "recipe.toml").read_text())["loss"] == {
        "use": "clip",
        "cliprange": 0.2,
    }
    manifest = json.loads((run.dir / "manifest.json").read_text())
    assert (manifest["status"], manifest["seed"]) == ("done", 3)
    assert manifest["result"] == {"eval/answer_reward": 0.75}
    assert manifest["computed"] == {"toys": "by hand"}
    assert [c["dist"] for c in manifest["components"]] == ["alignkit-toys"] * 2
    assert manifest["components"][0]["facts"] == {"groups": "2"}
    assert {"python", "torch", "transformers"} <= manifest["versions"].keys()
    rows = [json.loads(line) for line in (run.dir / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [0, 1]
    assert rows[0]["odd"] is None
    assert rows[1]["time"] >= rows[0]["time"] >= 0
    assert (run.dir / "rollouts/step_000001.jsonl").read_text() == '{"text": "é<"}\n'
    assert [row["eval/answer_reward"] for row in rows] == [0.25, 0.75]


def test_one_of_several_ranks_is_refused_before_anything_is_written(plan, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(AlignkitError, match=r"one of 2 processes.*'toy'.*without torchrun"):
        start(plan(), tmp_path)
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    start(plan(), tmp_path)


@pytest.mark.parametrize(
    ("fail", "error", "status"),
    [("user", RunFailed, "failed"), ("interrupt", KeyboardInterrupt, "interrupted")],
)
def test_a_run_that_breaks_says_so_in_its_manifest(plan, tmp_path, fail, error, status):
    with pytest.raises(error):
        start(plan(f"fail={fail}"), tmp_path)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["status"] == status
    assert manifest["computed"] == {"toys": "by hand"}
    assert (tmp_path / "out/error.txt").exists() == (fail == "user")


def test_nothing_is_written_when_the_recipe_cannot_be_built_here(plan, tmp_path):
    for override, error in [("needy", RecipeError), ("unimportable", AlignkitError)]:
        with pytest.raises(error):
            start(plan(f"policy.use={override}"), tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_directory_that_holds_something_is_not_run_into(plan, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("precious")
    with pytest.raises(AlignkitError, match="not empty"):
        start(plan(), tmp_path)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_runs_without_out_never_share_a_directory(plan, tmp_path):
    folders = {execute(plan(), tmp_path / "toy.toml", None, []).dir for _ in range(3)}
    assert len(folders) == 3
    assert {f.parent for f in folders} == {tmp_path / "runs"}


class Listener:
    def __init__(self):
        self.heard = []

    def start(self, run):
        self.heard.append(("start", run.name))

    def log(self, step, metrics):
        self.heard.append(("log", step, metrics["x"]))

    def rollouts(self, step, name, rows):
        self.heard.append((name, step, len(rows)))

    def close(self, status):
        self.heard.append(("close", status))


def test_trackers_hear_everything_once(tmp_path):
    run, listener = Run(tmp_path, {}), Listener()
    run.attach([listener])
    run.log(4, {"x": 2.0})
    run.rows(4, "eval/hard", [{}, {}])
    run.close("done")
    assert listener.heard == [
        ("start", tmp_path.name),
        ("log", 4, 2.0),
        ("eval/hard", 4, 2),
        ("close", "done"),
    ]


def test_every_tracker_is_closed_even_when_one_raises(tmp_path):
    class Stuck(Listener):
        def close(self, status):
            super().close(status)
            raise OSError("stuck")

    run, trackers = Run(tmp_path, {}), [Stuck(), Listener(), Stuck()]
    run.attach(trackers)
    with pytest.raises(OSError, match="stuck"):
        run.close("failed")
    assert [t.heard[-1] for t in trackers] == [("close", "failed")] * 3
