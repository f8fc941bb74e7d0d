"""``new-plugin --file`` and ``package``: an idea in one file, and a package made of it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from alignkit.kinds import HOOKS
from alignkit.testing import run_cli
from alignkit_scaffold.single import RIVALS

ONE_FILE = sorted(
    {"algorithm", "dataset", "preference_loss", "prompt_template", "reward_fn", "environment",
     "advantage", "loss_type", "normalizer"} & set(HOOKS)
)  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(kind, name="my_idea_x"):
    done = run_cli("new-plugin", name, "--kind", kind, "--file")
    assert done.status == 0, done.stderr
    return done


@pytest.mark.parametrize("kind", ONE_FILE)
def test_a_file_of_each_kind_is_clean_and_its_recipe_is_valid(kind, folder):
    written(kind)
    checked = run_cli("run", "my_idea_x.toml", "--dry-run")
    assert checked.status == 0, checked.stderr
    assert "(my_idea_x plugin, my_idea_x.py " in checked.stdout
    ruff = [Path(sys.executable).with_name("ruff"), "check", "--no-cache", "."]
    clean = subprocess.run(ruff, cwd=folder, capture_output=True, text=True, check=False)
    assert clean.returncode == 0, clean.stdout


@pytest.mark.parametrize("kind", sorted(RIVALS))
def test_a_sweep_compares_it_with_a_built_in_one(kind, folder):
    said = written(kind).stdout
    assert "alignkit sweep my_idea_x_sweep.toml" in said
    listed = run_cli("sweep", "my_idea_x_sweep.toml", "--list")
    assert listed.status == 0, listed.stderr
    table, rival = RIVALS[kind]
    for name in ("my_idea_x", rival):
        for seed in (0, 1):
            line = next(
                s for s in listed.stdout.splitlines() if s.startswith(f"{name}/seed_{seed} ")
            )
            assert f'{table}.use = "{name}"' in line


def test_what_has_no_rival_has_no_sweep(folder):
    assert "sweep" not in written("dataset").stdout
    assert not list(folder.glob("*_sweep.toml"))


@pytest.mark.parametrize("kind", sorted(set(HOOKS) - set(ONE_FILE)))
def test_a_kind_that_needs_more_than_a_file_says_so(kind):
    refused = run_cli("new-plugin", "my_idea_x", "--kind", kind, "--file")
    assert refused.status == 2
    assert f"{kind} takes a package of several modules; leave --file out" in refused.stderr
    assert not refused.stderr.startswith("a ")


@pytest.mark.parametrize("name", ["torch", "json", "sys", "pytest"])
def test_a_file_that_would_hide_a_module_of_python_is_refused(folder, name):
    """`python -m alignkit`, which a sweep starts, finds it before the library."""
    refused = run_cli("new-plugin", name, "--kind", "loss_type", "--file")
    assert refused.status == 2
    assert f"in place of '{name}'; try '{name}_idea'" in refused.stderr
    assert list(folder.iterdir()) == []
    assert run_cli("new-plugin", f"{name}_idea", "--kind", "loss_type", "--file").status == 0


def test_a_link_to_nowhere_is_not_written_through(folder):
    (folder / "mine.py").symlink_to(folder / "nowhere.py")
    refused = run_cli("new-plugin", "mine", "--kind", "loss_type", "--file")
    assert "mine.py exists; choose another NAME or --dest" in refused.stderr
    assert [path.name for path in folder.iterdir()] == ["mine.py"]


def test_the_rival_comes_first_for_others_are_compared_with_the_first(folder):
    written("loss_type")
    text = (folder / "my_idea_x_sweep.toml").read_text()
    assert list(tomllib.loads(text)["variants"]) == ["grpo_clip", "my_idea_x"]


def test_a_package_keeps_the_bytes_of_a_file_in_another_encoding(folder):
    written("loss_type")
    text = (folder / "my_idea_x.py").read_text().replace("State here", "Stàte here")
    content = f"# -*- coding: latin-1 -*-\r\n{text}".encode("latin-1")
    (folder / "my_idea_x.py").write_bytes(content)
    done = run_cli("package", "my_idea_x.py")
    assert done.status == 0, done.stderr
    assert "python -m build alignkit-my-idea-x" in done.stdout
    made = folder / "alignkit-my-idea-x/alignkit_my_idea_x/__init__.py"
    assert made.read_bytes() == content


def test_a_package_where_nothing_can_be_written_is_an_error_of_the_command(folder):
    written("loss_type")
    refused = run_cli("package", "my_idea_x.py", "--dest", "my_idea_x.toml")
    assert refused.status == 2
    assert "cannot write to my_idea_x.toml" in refused.stderr


def test_no_file_is_written_over(folder):
    (folder / "my_idea_x.toml").write_text("mine")
    refused = run_cli("new-plugin", "my_idea_x", "--kind", "loss_type", "--file")
    assert "my_idea_x.toml exists" in refused.stderr
    assert not (folder / "my_idea_x.py").exists()
    assert (folder / "my_idea_x.toml").read_text() == "mine"


@pytest.mark.parametrize("kind", ONE_FILE)
def test_a_package_is_made_of_a_file(kind, folder):
    written(kind)
    done = run_cli("package", "my_idea_x.py", "--dest", "out")
    assert done.status == 0, done.stderr
    package = folder / "out/alignkit-my-idea-x"
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["alignkit"] == {"my_idea_x": "alignkit_my_idea_x"}
    module = package / "alignkit_my_idea_x/__init__.py"
    assert module.read_text() == (folder / "my_idea_x.py").read_text()
    for file in package.rglob("*"):
        if file.is_file():
            assert "MY_" not in file.read_text(), file
    again = run_cli("package", "my_idea_x.py", "--dest", "out")
    assert "exists; choose another --dest" in again.stderr


def test_a_package_is_not_made_of_what_is_no_plugin(folder):
    (folder / "x.py").write_text("y = 1\n")
    refused = run_cli("package", "x.py")
    assert refused.status == 2
    assert "x.py offers nothing" in refused.stderr
