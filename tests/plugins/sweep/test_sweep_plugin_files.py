"""A sweep whose loss is one file: its runs get it, and all are made by the same code."""

import json

import pytest
import tomli

from alignkit.errors import AlignkitError
from alignkit.lifecycle.fingerprint import source_sum
from alignkit.plugin_files import with_files
from alignkit.testing import run_cli

LOSS = '''"""A loss."""
from alignkit import Component, Params, hookimpl
from alignkit.protocols import LossOutput, LossType


class Mine(Params[LossType]):
    """The policy gradient times a factor."""

    factor: float = 1.0
    """Factor."""

    def build(self) -> LossType:
        return lambda x: LossOutput(per_token=-self.factor * x.advantages * x.logprobs)


@hookimpl
def loss_type():
    yield Component("mine", Mine)
'''
SWEEP = """recipe = "toy.toml"
seeds = [0]
[variants.old.set]
n = 4
[variants.new.set]
loss.use = "mine"
[variants.double.set]
loss = {use = "mine", factor = 2.0}
"""
RECIPE = """extends = "alignkit:recipes/grpo.toml"
n_steps = 1
rollout_batch_size = 8
train_batch_size = 8
rollout.max_tokens = 4
eval.n = 2
loss.use = "mine"
"""


def note_code(place, run):
    """Write what a real run says about the code it used, for a stand-in's directory."""
    used = tomli.loads((place / f"out/{run}.toml").read_text())["loss"]["use"] == "mine"
    code = {"alignkit_file_my_loss": source_sum(place / "my_loss.py")} if used else {}
    (place / f"out/{run}/fingerprint.json").write_text(json.dumps({"code": code}))


@pytest.fixture
def file(place):
    (place / "my_loss.py").write_text(LOSS)
    return place / "my_loss.py"


@pytest.fixture
def read(sweep, registry, file):
    """Read the sweep as ``-p my_loss.py`` does."""
    return lambda: sweep(SWEEP, registry=with_files(registry, [file]))


def test_a_file_of_the_command_line_is_in_the_plan_of_every_run(read, make, place, file):
    made = make(read())
    assert made.started == ["old/seed_0", "new/seed_0", "double/seed_0"]
    for run in made.started:
        assert tomli.loads((place / f"out/{run}.toml").read_text())["plugins"] == [str(file)]


@pytest.mark.parametrize("status", ["done", "running"])
def test_runs_that_used_a_file_as_it_was_before_an_edit_are_not_taken_for_made(
    read, make, place, file, status
):
    for run in make(read()).started:
        note_code(place, run)
        manifest = place / f"out/{run}/manifest.json"
        manifest.write_text(json.dumps({"status": status, "seed": 0}))
    file.write_text(LOSS.replace("-self.factor", "self.factor"))
    if status == "running":
        assert make(read()).started == ["old/seed_0", "new/seed_0", "double/seed_0"]
        return
    with pytest.raises(AlignkitError, match=r"new/seed_0 was made with another plan \(.*my_loss"):
        make(read())


def test_an_edited_comment_makes_nothing_anew(read, make, place, file):
    for run in make(read()).started:
        note_code(place, run)
    file.write_text(LOSS.replace('"""A loss."""', '"""Another word."""  # and another'))
    assert make(read()).started == []


def test_an_edit_while_the_sweep_runs_is_told_at_its_end(read, make, place, file):
    def note(line):
        run, _, said = line.partition(": ")
        if said.startswith("done"):
            note_code(place, run)
            if run == "new/seed_0":
                file.write_text(LOSS.replace("-self.factor", "self.factor"))

    made = make(read(), say=note)
    assert len(made.failures) == 1
    assert made.failures[0].startswith("new/seed_0: ")
    assert "was made with another plan" in made.failures[0]


@pytest.mark.slow  # runs two processes
def test_the_command_hands_files_and_what_is_left_out_to_its_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_loss.py").write_text(LOSS)
    (tmp_path / "r.toml").write_text(RECIPE)
    (tmp_path / "s.toml").write_text('recipe = "r.toml"\nseeds = [1]\ngrid.loss.factor = [1, 2]\n')
    words = ["sweep", "s.toml", "-p", "./my_loss.py", "-p", "no:cs336", "--out", "out"]
    done = run_cli(*words)
    assert done.status == 0, done.stdout + done.stderr
    kept = sorted(tmp_path.glob("out/*/seed_1/plugins/my_loss.py"))
    assert [f.read_text() for f in kept] == [LOSS, LOSS]
    command = json.loads((kept[0].parents[1] / "manifest.json").read_text())["command"]
    assert "no:cs336" in command
    (tmp_path / "my_loss.py").write_text(LOSS.replace("-self.factor", "self.factor"))
    refused = run_cli(*words)
    assert refused.status == 2
    assert "was made with another plan" in refused.stderr
