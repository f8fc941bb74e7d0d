"""The README keeps its word: its recipe is the shipped one, its commands run, its plugin works."""

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line]
DRY = [c.removeprefix("alignkit ").split() for c in COMMANDS if c.startswith("alignkit ")]


def test_the_recipe_shown_is_the_shipped_one():
    (shown,) = blocks("toml")
    assert shown == (ROOT / "recipes" / "grpo_offpolicy.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("words", DRY, ids=" ".join)
def test_every_command_is_accepted(alignkit, words):
    dry = ["--dry-run"] if words[0] == "run" and "--dry-run" not in words else []
    done = alignkit(*words, *dry)
    assert done.exit_code == 0, done.output


def test_every_command_shown_is_one_of_alignkit_or_an_install():
    assert len(DRY) >= 5
    assert all(
        c.startswith(("alignkit ", "python3 -m venv .venv &&", "uv venv &&")) for c in COMMANDS
    )


def test_the_plugin_shown_conforms(tmp_path, monkeypatch):
    from alignkit.testing import checks, registry_of

    (source,) = blocks("python")
    (tmp_path / "cispo_as_shown.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = registry_of(import_module("cispo_as_shown"), name="cispo")
    cases = list(checks("cispo", registry=registry))
    assert len(cases) > 10
    for case in cases:
        case.run()


def test_the_complaints_shown_are_the_complaints_made(alignkit, tmp_path, monkeypatch):
    shown = next(b for b in blocks("text") if "n_step:" in b)
    (tmp_path / "mine.toml").write_text(
        f'extends = "{ROOT}/recipes/grpo.toml"\nn_step = 3\n[loss]\nuse = "grpo_clp"\n'
    )
    said = alignkit("run", tmp_path / "mine.toml").output
    for line in shown.splitlines():
        assert line.replace("recipes/mine.toml", str(tmp_path / "mine.toml")) in said
