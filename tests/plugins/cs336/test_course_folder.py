"""`alignkit init --cs336`: what it writes works as it is."""

import ast
import importlib.util
import re
import shlex
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

from alignkit import plugins, recipe
from alignkit.testing import conformance, run_cli
from alignkit_sweep.variants import Sweep

EDITIONS = ("2025", "2026")

test_conforms = conformance("cs336")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each edition."""
    found = {}
    for edition in EDITIONS:
        found[edition] = tmp_path_factory.mktemp("course") / edition
        done = run_cli("init", "--cs336", edition, found[edition])
        assert done.status == 0, done.stderr
        for line in done.stdout.splitlines()[:-1]:
            assert Path(line).exists(), line
    return found


def adapters_in(folder):
    path = folder / "tests" / "adapters.py"
    spec = importlib.util.spec_from_file_location(f"adapters_{folder.name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, ast.parse(path.read_text())


@pytest.mark.parametrize("edition", EDITIONS)
def test_the_adapters_are_a_list_of_imports_that_work(folders, edition):
    module, tree = adapters_in(folders[edition])
    assert all(isinstance(node, ast.ImportFrom) for node in tree.body[1:])
    ours = import_module(f"alignkit_cs336.spring{edition}")
    names = [name for node in tree.body[1:] for name in node.names]
    for name in names:
        assert getattr(module, name.asname or name.name) is getattr(ours, name.name)
        assert name.asname in (None, f"run_{name.name}")
    assert {node.module for node in tree.body[1:]} == {ours.__name__}


@pytest.mark.parametrize("edition", EDITIONS)
def test_every_function_that_an_edition_brings_is_in_its_adapters_and_guide(folders, edition):
    """What is not is for notebooks: the engine, the samples, rewards and plain helpers."""
    module, _ = adapters_in(folders[edition])
    ours = import_module(f"alignkit_cs336.spring{edition}")
    adapted = {name.removeprefix("run_") for name in vars(module) if not name.startswith("_")}
    helpers = {
        "VLLMServer", "evaluate_vllm", "init_vllm", "load_policy_into_vllm_instance",
        "log_generations", "question_only_reward_fn", "r1_zero_reward_fn",
    }  # fmt: skip
    if edition == "2026":
        helpers |= {"compute_entropy", "masked_mean", "masked_normalize"}
    assert adapted == set(ours.__all__) - helpers
    guide = (folders[edition] / "README.md").read_text()
    named = set(re.findall(r"`(?:run_)?(\w+)`", guide))
    assert adapted <= named


def commands(folder):
    """Every command of the guide, as words."""
    text = (folder / "README.md").read_text()
    found = re.findall(r"^(alignkit .*)$|`(alignkit [^`]+)`", text, re.M)
    return [shlex.split(a or b)[1:] for a, b in found]


ALSO = {"2025": {"explain"}, "2026": set()}
"""Commands that one edition's guide has and the other's has not."""


@pytest.mark.parametrize("edition", EDITIONS)
def test_every_recipe_and_sweep_of_the_guide_resolves_in_the_folder(folders, edition, monkeypatch):
    """Each command line is parsed by its command; what it names is checked as a dry run would."""
    monkeypatch.chdir(folders[edition])
    registry, seen = plugins.load(), set()
    for words in commands(folders[edition]):
        if words[0] in ("run", "explain"):
            overlays = [Path(w) for o, w in pairwise(words) if o == "--with"]
            recipe.load(Path(words[1]), registry, overlays)
        elif words[0] == "sweep":
            overlays = [Path(w) for o, w in pairwise(words) if o == "--with"]
            assert Sweep(Path(words[1]), registry, overlays).variants
        seen.add(words[0])
    assert seen == ALSO[edition] | {
        "run",
        "sweep",
        "show",
        "report",
        "chat",
        "export",
        "leaderboard",
    }


@pytest.mark.parametrize("edition", EDITIONS)
def test_the_guide_names_no_directory_that_its_commands_do_not_make(folders, edition):
    made = {Path(words[1]).stem for words in commands(folders[edition]) if words[0] == "sweep"}
    text = (folders[edition] / "README.md").read_text()
    assert set(re.findall(r"runs/(\w+)", text)) <= made


@pytest.mark.parametrize("edition", EDITIONS)
def test_the_options_of_the_guide_exist(folders, edition):
    names = {words[0] for words in commands(folders[edition])}
    helps = {name: run_cli(name, "--help").stdout for name in names}
    for words in commands(folders[edition]):
        for word in words[1:]:
            if word.startswith("-"):
                assert re.search(rf"(?<!\S){word}\b", helps[words[0]]), words
    text = (folders[edition] / "README.md").read_text()
    for option in re.findall(r"`(--\w[\w-]*)`", text):
        assert any(option in shown for shown in helps.values()), option


def test_a_recipe_of_the_folder_is_dry_run_there(folders, monkeypatch):
    monkeypatch.chdir(folders["2026"])
    done = run_cli("run", "recipes/grpo.toml", "--dry-run")
    assert done.status == 0, done.stderr
    assert str(folders["2026"] / "data") in done.stdout


def test_the_command_adds_to_a_folder_of_recipes(folders, tmp_path):
    assert run_cli("init", tmp_path / "lab").status == 0
    done = run_cli("cs336", "2025", tmp_path / "lab")
    assert done.status == 0, done.stderr
    for name in ("README.md", "tests/adapters.py", "recipes/grpo.toml"):
        assert (tmp_path / "lab" / name).read_bytes() == (folders["2025"] / name).read_bytes()


def test_the_command_writes_over_nothing_and_needs_the_recipes(folders, tmp_path):
    before = (folders["2025"] / "README.md").read_bytes()
    done = run_cli("cs336", "2026", folders["2025"])
    assert done.status == 2
    assert "adapters.py exists" in done.stderr
    assert (folders["2025"] / "README.md").read_bytes() == before
    done = run_cli("cs336", "2026", tmp_path)
    assert done.status == 2
    assert "by `alignkit init --cs336 2026 DIR`" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = run_cli("init", "--cs336", "2025", tmp_path)
    assert done.status == 2
    assert "exists and is not empty" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_an_edition_that_is_none_is_refused(tmp_path):
    done = run_cli("init", "--cs336", "2024", tmp_path / "lab")
    assert done.status == 2
    assert "'2024' is not one of '2025', '2026'" in done.stderr
    assert not (tmp_path / "lab").exists()


def test_without_the_plugin_the_option_says_so(tmp_path, monkeypatch):
    real = plugins.load
    monkeypatch.setattr(plugins, "load", lambda disabled=(): real([*disabled, "cs336"]))
    done = run_cli("init", "--cs336", "2025", tmp_path / "lab")
    assert done.status == 2
    assert "cs336" in done.stderr
    assert not (tmp_path / "lab").exists()
