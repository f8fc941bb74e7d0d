"""Plugins that are one file: named on the command line or in a recipe, kept with the run."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest
import tomli

from alignkit import plugins, recipe
from alignkit.errors import AlignkitError, RecipeError
from alignkit.plugin_files import with_files
from alignkit.testing import run_cli

LOSS = '''"""A loss."""
from collections.abc import Iterator
from alignkit import Component, Params, hookimpl
from alignkit.protocols import LossInputs, LossOutput, LossType


class Scaled(Params[LossType]):
    """The policy gradient times a factor."""

    scale: float = 2.0
    """Factor."""

    def build(self) -> LossType:
        def loss(x: LossInputs) -> LossOutput:
            return LossOutput(per_token=-self.scale * x.advantages * x.logprobs)

        return loss


@hookimpl
def loss_type() -> Iterator[Component[LossType]]:
    yield Component("NAME", Scaled)
'''
RECIPE = """extends = "alignkit:recipes/grpo.toml"
plugins = ["my_loss.py"]
n_steps = 1
rollout_batch_size = 8
train_batch_size = 8
[rollout]
max_tokens = 4
[eval]
n = 2
[checkpoint]
every = 1
[loss]
use = "scaled"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_loss.py").write_text(LOSS.replace("NAME", "scaled"))
    (tmp_path / "r.toml").write_text(RECIPE)
    return tmp_path


def test_a_file_on_the_command_line_is_a_plugin(folder):
    listed = run_cli("list-plugins", "-p", "my_loss.py", "--json")
    found = [p for p in json.loads(listed.stdout) if p["name"] == "my_loss"]
    assert [p["provides"] for p in found] == [{"loss_type": ["scaled"]}]
    shown = run_cli("describe", "loss_type", "scaled", "-p", "./my_loss.py")
    assert "The policy gradient times a factor" in shown.stdout


def test_its_sum_is_said_before_it_runs(folder):
    (folder / "my_loss.py").write_text("print('it ran')\n" + LOSS.replace("NAME", "scaled"))
    command = [sys.executable, "-m", "alignkit", "run", "r.toml", "--dry-run"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    sha = hashlib.sha256((folder / "my_loss.py").read_bytes()).hexdigest()
    assert done.stdout.splitlines()[:2] == [f"plugin file my_loss.py, sha256 {sha}", "it ran"]


def test_a_run_keeps_the_file_and_goes_on_without_the_original(folder):
    done = run_cli("run", "r.toml", "--out", "run")
    assert done.status == 0, done.stderr
    assert tomli.loads((folder / "run/recipe.toml").read_text())["plugins"] == [
        "plugins/my_loss.py"
    ]
    (folder / "my_loss.py").unlink()
    shutil.move("run", "moved")
    more = run_cli("resume", "moved", "-s", "n_steps=2")
    assert more.status == 0, more.stderr
    rows = [json.loads(line) for line in (folder / "moved/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 2
    assert tomli.loads((folder / "moved/recipe.toml").read_text())["plugins"] == [
        "plugins/my_loss.py"
    ]


def test_a_resume_refuses_a_file_that_computes_something_else(folder):
    assert run_cli("run", "r.toml", "--out", "run").status == 0
    kept = folder / "run/plugins/my_loss.py"
    kept.write_text(kept.read_text().replace("-self.scale", "self.scale"))
    refused = run_cli("resume", "run", "-s", "n_steps=2")
    assert refused.status == 2
    assert "alignkit_file_my_loss" in refused.stderr


def test_files_of_a_base_recipe_and_its_variant_are_both_there(folder):
    (folder / "below").mkdir()
    (folder / "below/other.py").write_text(LOSS.replace("NAME", "another"))
    (folder / "below/base.toml").write_text('plugins = ["other.py"]\n' + RECIPE.splitlines()[0])
    (folder / "r.toml").write_text(RECIPE.replace("alignkit:recipes/grpo.toml", "below/base.toml"))
    node = recipe.load(folder / "r.toml", plugins.load(), overrides=['loss.use="another"'])
    assert [f.name for f in node.files] == ["other.py", "my_loss.py"]
    assert node.children["loss"].params.scale == 2.0


@pytest.mark.slow  # runs two processes
def test_a_sweep_hands_the_file_to_its_runs(folder):
    (folder / "s.toml").write_text(
        'recipe = "r.toml"\nseeds = [1]\n[variants.a.grid]\nloss.scale = [1.0, 2.0]\n'
    )
    done = run_cli("sweep", "s.toml", "--out", "sweep")
    assert done.status == 0, done.stdout + done.stderr
    kept = list((folder / "sweep").rglob("plugins/my_loss.py"))
    assert len(kept) == 2


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("my-loss.py", LOSS, "cannot be a plugin"),
        ("my_loss.txt", LOSS, "cannot be a plugin"),
        ("losses.py", LOSS, "would be plugin 'losses'"),
        ("losses.py", LOSS, "losses.py out of `plugins` and -p"),
        ("mine.py", LOSS.replace("NAME", "grpo_clip"), "plugin losses of alignkit"),
        ("mine.py", LOSS.replace("NAME", "grpo_clip"), "; give it another name in "),
        ("mine.py", "x = 1\n", "offers nothing"),
        ("mine.py", "x = 1\n1 / 0\n", "mine.py:2: ZeroDivisionError"),
        ("mine.py", "x = 1\n\nx = = 2\n", "mine.py:3: SyntaxError"),
        ("mine.py", "import sys\nsys.exit(0)\n", "mine.py:2: SystemExit"),
        ("mine.py", "x = 1\0\n", "mine.py: SyntaxError"),
        (
            "mine.py",
            LOSS.replace("loss_type() -> Iterator[Component[LossType]]", "command()"),
            "mine.py: TypeError",
        ),
    ],
    ids=lambda value: value.partition("\n")[0][:24],
)
def test_what_cannot_be_a_plugin_is_refused(tmp_path, name, text, wanted):
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(AlignkitError) as refused:
        with_files(plugins.load(), [file])
    assert wanted in str(refused.value)


def test_what_a_file_prints_is_kept_out_of_json(folder):
    text = LOSS.replace("NAME", "loud").replace("@hookimpl", "print('hello')\n\n\n@hookimpl")
    (folder / "loud.py").write_text(text)
    done = run_cli("list-plugins", "--json", "-p", "loud.py")
    assert done.status == 0, done.stderr
    assert "loud" in {plugin["name"] for plugin in json.loads(done.stdout)}
    assert "hello" in done.stderr


def test_two_files_with_one_component_are_both_named(folder):
    shutil.copy("my_loss.py", "second.py")
    with pytest.raises(AlignkitError) as refused:
        with_files(plugins.load(), [folder / "my_loss.py", folder / "second.py"])
    said = "second.py offers loss_type 'scaled', and so does my_loss.py; give it another name in"
    assert said in str(refused.value)


def test_a_module_beside_the_file_is_said_to_be_out_of_its_reach(folder):
    (folder / "helper.py").write_text("x = 1\n")
    (folder / "needy.py").write_text("from helper import x\n")
    with pytest.raises(AlignkitError, match=r"needy.py:1: .*'helper'; a plugin file cannot import"):
        with_files(plugins.load(), [folder / "needy.py"])
    (folder / "far.py").write_text("import nothing_like_it\n")
    with pytest.raises(AlignkitError, match=r"No module named 'nothing_like_it'$"):
        with_files(plugins.load(), [folder / "far.py"])


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda file: file.symlink_to(file), "cannot be read: Too many levels"),
        (lambda file: file.symlink_to("gone.py"), "cannot be read: No such file"),
        (os.mkfifo, "it is no regular file"),
        (lambda file: file.mkdir(), "cannot be read: Is a directory"),
    ],
    ids=["circle", "dangling", "pipe", "folder"],
)
def test_what_cannot_be_read_as_a_file_is_refused_at_once(tmp_path, make, wanted):
    make(tmp_path / "mine.py")
    with pytest.raises(AlignkitError, match=wanted):
        with_files(plugins.load(), [tmp_path / "mine.py"])


def test_two_files_of_one_name_are_refused_and_one_file_twice_is_not(folder):
    (folder / "b").mkdir()
    (folder / "b/my_loss.py").write_text(LOSS.replace("NAME", "other"))
    once = with_files(plugins.load(), [folder / "my_loss.py", folder / "my_loss.py"])
    assert [p.name for p in once.plugins].count("my_loss") == 1
    with pytest.raises(AlignkitError, match=r"my_loss\.py is already; rename the file"):
        with_files(once, [folder / "b/my_loss.py"])


@pytest.mark.parametrize("given", ['"gone.py"', "3", "[3]", '["my_loss.py", "gone.py"]'])
def test_a_recipe_that_names_no_file_says_where(folder, given):
    text = RECIPE.replace('["my_loss.py"]', given)
    (folder / "r.toml").write_text(text)
    with pytest.raises(RecipeError) as refused:
        recipe.load(folder / "r.toml", plugins.load())
    assert "r.toml:2: plugins: no" in str(refused.value)


@pytest.mark.parametrize("given", ["scale=3", "loss_type=3", "loss_type.my=3", 'loss_type.my="x"'])
def test_check_refuses_a_value_that_names_no_key_of_a_component(folder, given):
    done = run_cli("check", "my_loss.py", "-s", given)
    assert done.status == 2, done.stdout
    assert done.stderr.splitlines()[-1].endswith("write -s KIND.NAME.KEY=VALUE")


def test_a_file_named_like_an_installed_plugin_is_refused_with_both_remedies(folder):
    (folder / "losses.py").write_text(LOSS.replace("NAME", "other"))
    with pytest.raises(AlignkitError, match=r"alignkit \S+ is already; rename .* leave .* out"):
        with_files(plugins.load(), [folder / "losses.py"])
