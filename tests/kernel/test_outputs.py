"""A run writes outside its directory only what the command line names."""

import pytest
from click.testing import CliRunner

from alignkit.cli import main

RECIPE = """
extends = "alignkit:recipes/evaluate.toml"
[[trackers]]
use = "jsonl"
path = "{path}"
"""


@pytest.fixture
def begin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("alignkit.execution.built", stop)

    def run(path, *words):
        (tmp_path / "r.toml").write_text(RECIPE.format(path=path))
        return CliRunner().invoke(main, ["run", "r.toml", "--out", "out", *words])

    return run


def stop(node):
    raise SystemExit(7)


@pytest.mark.parametrize("path", ["profile", "../up.jsonl", "/tmp/any/where.jsonl", "out/../x"])
def test_a_recipe_cannot_have_a_file_elsewhere_appended_to(begin, tmp_path, path):
    (tmp_path / "profile").write_text("mine")
    done = begin(path)
    assert done.exit_code == 2, done.output
    assert "r.toml:5: trackers.0.path: " in done.output
    assert "is outside the run directory" in done.output
    assert 'to have it so: -s \'trackers=[{use="jsonl", path=' in done.output
    assert not (tmp_path / "out").exists()


def test_the_command_line_can(begin):
    assert begin("profile", "-s", 'trackers=[{use="jsonl", path="all.jsonl"}]').exit_code == 7


def test_files_in_the_run_directory_are_the_runs_own(begin):
    assert begin("out/rows.jsonl").exit_code == 7
