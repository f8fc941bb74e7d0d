"""A run is made longer: a finished one goes on from its checkpoint, or says how to go on."""

import json
import shlex
import tomllib

import pytest
from click.testing import CliRunner

from alignkit.cli import main
from alignkit_testing.algorithm import is_measured

SMALL = {
    "n_steps": 2,
    "rollout_batch_size": 8,
    "train_batch_size": 8,
    "group_size": 4,
    "rollout.max_tokens": 8,
    "eval.n": 8,
    "eval.every": 1,
}


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def called(*words, status=0):
        done = CliRunner().invoke(main, [str(w) for w in words])
        assert done.exit_code == status, done.output
        return done.output

    return called


def run(call, out, recipe="grpo", **changed):
    values = SMALL | {"checkpoint.every": 1} | {k.replace("__", "."): v for k, v in changed.items()}
    sets = [w for k, v in values.items() if v is not None for w in ("-s", f"{k}={v}")]
    return call("run", f"alignkit:recipes/{recipe}.toml", *sets, "--out", out)


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if not is_measured(k)} for x in lines]


def test_a_finished_run_goes_on_as_one_that_was_as_long_from_the_start(call, tmp_path):
    run(call, "short")
    run(call, "long", n_steps=4)
    assert "nothing to do" in call("resume", "short")
    said = call("resume", "short", "-s", "n_steps=4")
    assert "going on from step_000002" in said
    assert rows(tmp_path / "short") == rows(tmp_path / "long")
    for file in ("final/model.safetensors", "rollouts/step_000004.jsonl"):
        assert (tmp_path / "short" / file).read_bytes() == (tmp_path / "long" / file).read_bytes()
    assert tomllib.loads((tmp_path / "short/recipe.toml").read_text())["n_steps"] == 4
    (noted,) = json.loads((tmp_path / "short/manifest.json").read_text())["resumes"]
    assert noted["changes"] == ["recipe n_steps"]
    assert "nothing to do" in call("resume", "short")


def test_a_finished_run_refuses_what_resuming_cannot_change(call, tmp_path):
    run(call, "run")
    before = rows(tmp_path / "run")
    for key in ("n_stps", "seed", "checkpoint.every", "policy.path"):
        said = call("resume", "run", "-s", f"{key}=3", status=2)
        assert f"-s cannot change {key}" in said
    assert rows(tmp_path / "run") == before
    assert "nothing to do" in call("resume", "run")


def test_an_edited_length_counts_as_a_given_one(call, tmp_path):
    run(call, "run", n_steps=1)
    file = tmp_path / "run" / "recipe.toml"
    file.write_text(file.read_text().replace("n_steps = 1\n", "n_steps = 2\n"))
    call("resume", "run")
    assert [row["step"] for row in rows(tmp_path / "run")] == [0, 1, 2]


def test_fine_tuning_goes_on_for_more_epochs(call, tmp_path):
    given = dict.fromkeys(("n_steps", "rollout_batch_size", "group_size"))
    run(
        call,
        "run",
        "sft",
        **given,
        train_batch_size=4,
        n_examples=8,
        epochs=1,
        optimizer__warmup_steps=0,
    )
    call("resume", "run", "-s", "epochs=2")
    assert [row["step"] for row in rows(tmp_path / "run")] == [0, 1, 2, 3, 4]


def test_no_more_steps_than_were_made_are_refused(call, tmp_path):
    run(call, "run")
    before = rows(tmp_path / "run")
    assert "has made 2 steps; n_steps = 1 is no more" in call(
        "resume", "run", "-s", "n_steps=1", status=2
    )
    assert "cannot change seed" in call(
        "resume", "run", "-s", "n_steps=3", "-s", "seed=1", status=2
    )
    assert rows(tmp_path / "run") == before
    assert (tmp_path / "run" / "final").is_dir()


def test_a_finished_run_without_a_checkpoint_says_how_to_go_on(call, tmp_path):
    run(call, "my run", n_steps=1)
    import shutil

    shutil.rmtree(tmp_path / "my run" / "checkpoints", ignore_errors=True)
    said = call("resume", "my run", "-s", "n_steps=2", status=2)
    assert "is finished and left no checkpoint" in said
    assert (tmp_path / "my run" / "final").is_dir()
    words = shlex.split(said.split("alignkit run ")[1])
    call("run", *words, "--dry-run")


def test_a_schedule_that_depends_on_the_length_is_said_to_change(call):
    run(call, "run", n_steps=1, optimizer__schedule='"linear"')
    said = call("resume", "run", "-s", "n_steps=2")
    assert "follows the linear schedule of the longer run" in said


@pytest.mark.parametrize("package", ["alignkit", "torch"])
def test_after_an_upgrade_the_versions_before_and_after_are_named(call, tmp_path, package):
    run(call, "run", n_steps=1)
    file = tmp_path / "run" / "manifest.json"
    facts = json.loads(file.read_text())
    now = facts["versions"][package]
    facts["versions"][package] = "0.0.7"
    for component in facts["components"]:
        component["version"] = "0.0.7" if component["dist"] == package else component["version"]
    file.write_text(json.dumps(facts))
    assert f"versions since it last ran: {package} 0.0.7 -> {now}\n" in call(
        "resume", "run", "-s", "n_steps=2"
    )
    assert "versions since" not in call("resume", "run", "-s", "n_steps=3")


def test_a_refusal_names_the_versions_too(call, tmp_path):
    run(call, "run", n_steps=1)
    for name, edit in {
        "manifest.json": lambda f: f["versions"].update(torch="0.0.7"),
        "fingerprint.json": lambda f: f["version"].update(torch="0.0.7"),
    }.items():
        file = tmp_path / "run" / name
        facts = json.loads(file.read_text())
        edit(facts)
        file.write_text(json.dumps(facts))
    said = call("resume", "run", "-s", "n_steps=2", status=2)
    assert "versions: torch 0.0.7 -> " in said
    assert "--allow-changes" in said
