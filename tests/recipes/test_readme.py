"""The README keeps its word: its recipe is the shipped one, its commands run, its plugin works."""

import importlib.util
import re
from importlib import import_module
from pathlib import Path

import click
import pytest

from alignkit import plugins
from alignkit.cli import main
from alignkit.kinds import HOOKS

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


def rows(heading):
    """Return the cells of the table under a heading."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_command_is_listed_with_its_argument_and_all_its_options():
    shown = {
        cells[0].strip("`"): set(re.findall(r"`(-.*?)`", cells[2])) for cells in rows("Commands")
    }
    real, ctx = {}, click.Context(main)
    for name in main.list_commands(ctx):
        command = main.get_command(ctx, name)
        options = [p for p in command.params if isinstance(p, click.Option)]
        arguments = [
            p.make_metavar(click.Context(command)) for p in command.params if p not in options
        ]
        words = [name, *(a.replace("{", "").partition("|")[0] for a in arguments)]
        if name == "describe":
            words[1] = "KIND"  # click lists the kinds
        real[" ".join(words)] = {p.opts[0] for p in options}
    assert shown == real


def test_everything_built_in_is_listed_and_nothing_else():
    shown = {cells[0].strip("`"): re.findall(r"`(\w+)`", cells[2]) for cells in rows("Built in")}
    real = {kind: [] for kind in HOOKS}
    for plugin in plugins.load().plugins:
        for kind, names in plugin.provides.items():
            real[kind] += names if plugin.dist == "alignkit" else []
    assert shown == real


def test_the_plugin_shown_conforms(tmp_path, monkeypatch):
    from alignkit.testing import checks, registry_of

    (source,) = [block for block in blocks("python") if "@hookimpl" in block]
    (tmp_path / "cispo_as_shown.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = registry_of(import_module("cispo_as_shown"), name="cispo")
    cases = list(checks("cispo", registry=registry))
    assert len(cases) > 10
    for case in cases:
        case.run()


@pytest.mark.slow  # a run of four steps
def test_the_script_shown_runs(tmp_path, monkeypatch):
    (source,) = [block for block in blocks("python") if "@hookimpl" not in block]
    if importlib.util.find_spec("matplotlib") is None:
        source = "\n".join(line for line in source.splitlines() if ".plot(" not in line)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    names = {}
    exec(source, names)
    assert names["result"].status == "done"
    assert names["result"].final["step"] == 4
    assert sum(p.numel() for p in names["model"].parameters()) > 100_000


def test_the_complaints_shown_are_the_complaints_made(alignkit, tmp_path, monkeypatch):
    shown = next(b for b in blocks("text") if "n_step:" in b)
    (tmp_path / "mine.toml").write_text(
        f'extends = "{ROOT}/recipes/grpo.toml"\nn_step = 3\n[loss]\nuse = "grpo_clp"\n'
    )
    said = alignkit("run", tmp_path / "mine.toml").output
    for line in shown.splitlines():
        assert line.replace("recipes/mine.toml", str(tmp_path / "mine.toml")) in said


def test_every_picture_and_link_is_there():
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert any(link.endswith(".png") for link in links)
    for link in links:
        assert link.startswith("http") or (ROOT / link).is_file(), link
        if link.endswith(".png"):
            assert (ROOT / link).stat().st_size < 150_000
