"""The guides keep their word: what is there is listed, what they show is accepted."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tomli

from alignkit import plugins, recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
TESTS = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
DATA = (ROOT / "data" / "README.md").read_text(encoding="utf-8")


def commands(text):
    blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def listed(text, heading, column=0):
    """Return the words in code type in a column of the tables under a heading."""
    section = text.split(f"{heading}\n", 1)[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row[column])}


ALIGNKIT = [words[1:] for words in commands(RECIPES) if words[0] == "alignkit"]


@pytest.mark.parametrize("words", ALIGNKIT, ids=" ".join)
def test_every_command_is_accepted(alignkit, words):
    dry = ["--dry-run"] if words[0] == "run" and "--dry-run" not in words else []
    if words[0] == "sweep" and "--list" not in words:
        dry = ["--list"]
    done = alignkit(*words, *dry)
    assert done.exit_code == 0, done.output


def test_every_recipe_idea_and_overlay_is_listed():
    folder = ROOT / "recipes"
    assert listed(RECIPES, "# Recipes") == {p.name for p in folder.glob("*.toml")}
    assert listed(RECIPES, "## Published ideas") == {p.name for p in (folder / "ideas").glob("*")}
    chats = {p.name for p in (folder / "chat").glob("*.toml")}
    assert listed(RECIPES, "## Dialogues") == chats
    named = listed(RECIPES, "## Scales") | {
        f"qwen2.5-math-1.5b{suffix}.toml"
        for suffix in listed(RECIPES, "## Scales", 1)
        if suffix.startswith("-")
    }
    assert named == {p.name for p in (folder / "scale").glob("*.toml")}


def test_what_carries_an_idea_is_what_its_recipe_chooses():
    registry = plugins.load()
    section = RECIPES.split("## Published ideas\n")[1].split("\n## ")[0]
    for line in section.splitlines():
        if not line.startswith("| `"):
            continue
        files, _, what = line.strip("|").split("|")
        for name in re.findall(r"`([^`]+)`", files):
            node = recipe.load(ROOT / "recipes" / "ideas" / name, registry)
            said = str(node.dump())
            for word in re.findall(r"`\[?(\w+)\]?`", what):
                assert f"'{word}'" in said, (name, word)


def test_every_idea_gives_its_paper_in_its_recipe():
    for path in (ROOT / "recipes" / "ideas").glob("*.toml"):
        head = path.read_text().partition("extends")[0]
        assert re.search(r"arXiv:\d{4}\.\d{5}|20\d\d\)|http", head), path.name


def test_every_sweep_has_its_results_or_is_said_to_have_none():
    shown = set(re.findall(r"^### `(\w+)`", RECIPES, re.MULTILINE))
    without = RECIPES.partition("Not run yet at a size worth a table: ")[2]
    unrun = set(re.findall(r"`(\w+)`", without))
    assert not shown & unrun
    assert shown | unrun == {p.stem for p in (ROOT / "recipes" / "sweeps").glob("*.toml")}


def test_the_tables_of_results_are_what_the_script_prints(tmp_path):
    run = tmp_path / "mine" / "a" / "seed_3"
    run.mkdir(parents=True)
    row = '{"step": %d, "eval/answer_reward": %g, "eval/answer_reward_se": 0.03}\n'
    (run / "metrics.jsonl").write_text(row % (0, 0.25) + row % (9, 0.5))
    (run / "recipe.toml").write_text("seed = 3\n")
    (run / "manifest.json").write_text('{"status": "done", "seed": 3}')
    script = [sys.executable, "recipes/results.py", tmp_path / "mine"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True)
    heading, _, heads, _, cells = done.stdout.strip().splitlines()[:5]
    assert heading == "### `mine`"
    assert f"\n{heads[:50]}" in RECIPES
    assert cells == "| `a` | 3 | 9 | 0.250 ± 0.030 | 0.500 ± 0.030 | done |"


def test_every_folder_of_tests_is_listed():
    skipped = ("fixtures", "__pycache__")
    real = {p.name for p in (ROOT / "tests").iterdir() if p.is_dir()} - set(skipped)
    names = {name.rstrip("/") for name in listed(TESTS, "# Tests")}
    assert names - set(skipped) == {name for name in real if any((ROOT / "tests" / name).iterdir())}


def test_the_markers_of_the_tests_are_those_of_the_project():
    project = tomli.loads((ROOT / "pyproject.toml").read_text())
    markers = {m.partition(":")[0] for m in project["tool"]["pytest"]["ini_options"]["markers"]}
    assert {words[2] for words in commands(TESTS) if words[1:2] == ["-m"]} == markers


def test_every_option_of_the_data_s_program_is_told():
    script = [sys.executable, ROOT / "data" / "make.py", "--help"]
    told = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    options = set(re.findall(r"(--[a-z-]+)", told)) - {"--help"}
    assert options == set(re.findall(r"(?<![\w-])(--[a-z]+(?:-[a-z]+)*)", DATA))
    for words in commands(DATA):
        assert words[:2] == ["python", "data/make.py"]
        assert set(words[2:]) <= options
