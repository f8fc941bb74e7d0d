"""The command: exit status, help that keeps its word, and what must not be imported."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from alignkit import plugins
from alignkit.cli import main

HEAVY = {"torch", "transformers", "vllm", "wandb", "numpy", "sympy", "math_verify", "rich"}


def call(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


@pytest.fixture
def toys(registry, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "load", lambda disable=(): registry)
    (tmp_path / "toy.toml").write_text('use = "toy"\n[loss]\nuse = "clip"\n')


def test_a_run_ends_with_where_it_is_and_status_0(toys):
    done = call("run", "toy.toml", "--out", "here")
    assert done.exit_code == 0, done.output
    assert "eval/answer_reward: 0.250 -> 0.750" in done.output
    assert "run directory: here" in done.output


def test_a_run_without_the_command_that_tells_its_end_is_done_all_the_same(toys, registry):
    del registry.offers["command", "show"]
    done = call("run", "toy.toml", "--out", "here")
    assert done.exit_code == 0, done.output
    *_, where, last = done.output.splitlines()
    assert where == "run directory: here"
    assert last.startswith("without alignkit show: unknown command 'show'.")


def test_a_failed_run_has_status_1_and_a_wrong_recipe_2_without_a_traceback(toys):
    failed = call("run", "toy.toml", "-s", "fail=user", "--out", "here")
    assert failed.exit_code == 1
    assert "KeyError: 'boom'" in failed.output
    wrong = call("run", "toy.toml", "-s", "n=x", "--out", "there")
    assert wrong.exit_code == 2
    assert "Traceback" not in wrong.output
    assert not Path("there").exists()
    assert call("run", "toy.toml", "--out", "here").exit_code == 2
    assert call("run", "nowhere.toml").exit_code == 2
    assert call("run", "toy.toml", "-p", "losses").exit_code == 2


def test_a_dry_run_writes_nothing(toys, tmp_path):
    before = sorted(tmp_path.iterdir())
    done = call("run", "toy.toml", "--dry-run")
    assert done.exit_code == 0
    assert "groups: 2" in done.output
    assert sorted(tmp_path.iterdir()) == before


def test_list_plugins_strict_fails_when_one_is_broken(toys):
    assert call("list-plugins").exit_code == 0
    assert call("list-plugins", "--strict").exit_code == 1
    listed = json.loads(call("list-plugins", "--json").output)
    assert {p["name"]: p["status"] for p in listed}["sad"] == "broken"


def test_describe_shows_fields_defaults_limits_and_tables(toys):
    said = call("describe", "algorithm", "toy").output
    assert "n: int = 4   [> 0]\n      How many." in said
    assert "[[trackers]]  use = a tracker (optional)" in said
    assert "[eval]  a table of fixed shape (optional)" in said
    unknown = call("describe", "algorithm", "tyo")
    assert unknown.exit_code == 2
    assert "Did you mean 'toy'?" in unknown.output


def test_the_schema_knows_fields_and_tables(toys):
    made = json.loads(call("schema").output)
    toy = made["$defs"]["algorithm.toys.toy"]
    assert toy["properties"]["use"] == {"enum": ["toys/toy", "toy"]}
    assert toy["properties"]["loss"] == {"$ref": "#/$defs/loss_type"}
    assert toy["properties"]["trackers"]["items"] == {"$ref": "#/$defs/tracker"}
    assert toy["properties"]["n"]["description"] == "How many."
    assert toy["additionalProperties"] is False
    assert made["$defs"]["loss_type.toys.plain"]["properties"]["use"]["enum"] == ["toys/plain"]


def test_listing_the_real_plugins_imports_nothing_heavy():
    code = (
        "import sys; from alignkit.cli import main; main(['list-plugins'], standalone_mode=False);"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[]"


def test_every_built_in_plugin_is_active():
    ours = [p for p in plugins.load().plugins if p.dist == "alignkit"]
    assert {p.status for p in ours} == {"active"}, [(p.name, p.detail) for p in ours]
    assert all(p.provides for p in ours)


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "alignkit", "--version"], capture_output=True, text=True, check=True
    )
    assert version("alignkit") in done.stdout


def test_grade_prints_categories_and_writes_verdicts(tmp_path):
    rows = [
        {"out": " x </think> <answer> 2 </answer>", "gold": "2"},
        {"out": " x </think> <answer> 3 </answer>", "gold": "2"},
        {"out": "2", "gold": "2"},
    ]
    saved = tmp_path / "saved.jsonl"
    saved.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = call("grade", saved, "--reward", "r1_zero", "--response", "out")
    assert done.exit_code == 0, done.output
    assert "(1,1)                    1   33.3 %" in done.output
    verdicts = (tmp_path / "saved.verdicts.jsonl").read_text().splitlines()
    assert [json.loads(v)["category"] for v in verdicts] == ["(1,1)", "(1,0)", "(0,0)"]
    wrong = call("grade", saved, "--reward", "r1_zero", "--response", "output_text")
    assert wrong.exit_code == 2
    assert "saved.jsonl:1: no column 'output_text'" in wrong.output


WINDOWS = """
import sys
sys.platform = "win32"
sys.modules["fcntl"] = sys.modules["resource"] = None  # Windows has neither
from alignkit.__main__ import main
main()
"""


def test_on_windows_a_line_says_where_it_runs():
    done = subprocess.run(
        [sys.executable, "-c", WINDOWS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "alignkit runs on Linux and macOS; on Windows install it in WSL\n"
