"""``alignkit:…`` names what is shipped, in any directory, wherever a file to read is named."""

import click
import pytest
from click.testing import CliRunner

from alignkit import plugins
from alignkit.cli import main
from alignkit.commands import GIVEN, command_of

RECIPE = "alignkit:recipes/grpo.toml"
SCALE = "alignkit:recipes/scale/qwen2.5-math-1.5b.toml"
SWEEP = "alignkit:recipes/sweeps/lr.toml"


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call ``alignkit`` in an empty folder; it must end well."""
    monkeypatch.chdir(tmp_path)

    def called(*words):
        done = CliRunner().invoke(main, [str(w) for w in words])
        assert done.exit_code == 0, done.output
        return done.output

    return called


@pytest.mark.parametrize(
    "words",
    [
        ["run", RECIPE, "--dry-run"],
        ["run", RECIPE, "--with", SCALE, "--dry-run"],
        ["run", RECIPE, "-s", "policy.path=alignkit:data/tiny_policy", "--dry-run"],
        ["explain", RECIPE],
        ["explain", RECIPE, "--with", SCALE],
        ["sweep", SWEEP, "--list"],
        ["sweep", SWEEP, "--with", SCALE, "--list"],
    ],
    ids=" ".join,
)
def test_commands_take_what_is_shipped(call, words):
    assert call(*words)


@pytest.mark.parametrize(
    "text",
    [
        f'extends = "{RECIPE}"\n',
        f'extends = ["{RECIPE}", "{SCALE}"]\n',
        f'extends = "{RECIPE}"\n[policy]\npath = "alignkit:data/tiny_policy"\n',
    ],
)
def test_recipes_extend_what_is_shipped(call, tmp_path, text):
    (tmp_path / "own.toml").write_text(text)
    said = call("run", "own.toml", "--dry-run")
    assert 'use = "grpo"' in said
    assert call("run", RECIPE, "--with", "own.toml", "--dry-run")


def test_sweeps_are_of_what_is_shipped(call, tmp_path):
    (tmp_path / "s.toml").write_text(f'recipe = "{RECIPE}"\nwith = ["{SCALE}"]\n')
    assert "seed_own" in call("sweep", "s.toml", "--list")


def test_responses_are_graded_by_the_reward_of_a_shipped_recipe(call, tmp_path):
    (tmp_path / "r.jsonl").write_text('{"response": "<answer>4</answer>", "gold": "4"}\n')
    assert call("grade", "r.jsonl", "--reward", RECIPE)


def test_a_run_notes_where_the_shipped_recipe_is(call, tmp_path):
    import json

    from alignkit.shipped import shipped

    call("run", "alignkit:recipes/evaluate.toml", "-s", "n=2", "--out", "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["recipe"] == str(shipped() / "recipes" / "evaluate.toml")


WRITTEN = {"out", "dest", "card"}
"""Parameters that name what a command writes."""
BESIDE = {("init", "folder"), ("cs336", "folder"), ("grade", "path")}
"""Arguments that a command writes to, or beside: it must not write where alignkit is installed."""


def test_every_parameter_that_names_what_is_read_is_of_the_one_type():
    registry = plugins.load()
    names = [*main.commands, *(n for kind, n in registry.offers if kind == "command")]
    seen = set()
    for name in names:
        command = main.commands.get(name) or command_of(registry, name)
        for parameter in command.params:
            if isinstance(parameter.type, click.Path):
                written = parameter.name in WRITTEN or (name, parameter.name) in BESIDE
                assert (parameter.type is GIVEN) != written, (name, parameter.name)
                seen.add(name)
    assert seen >= {"run", "resume", "explain", "sweep", "report", "show", "grade", "init"}
