"""plugins/README.md: every hook is there with its real signature, and every block works."""

import importlib.util
import inspect
import re
import sys
from pathlib import Path

import pytest

from alignkit import hookspecs, recipe
from alignkit.kinds import HOOKS, KINDS
from alignkit.testing import checks, registry_of
from alignkit.toml import read

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL))
BASES = {"preference_loss": "dpo"}
PARAMS = {"algorithm": {"n_steps": 2, "batch_size": 4}}


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def signatures(protocol, kind):
    """Return the hook and what its product has, as the guide shows them."""
    yield f"def {kind}{inspect.signature(getattr(hookspecs, kind))}"
    name = protocol.__name__
    for member, annotation in protocol.__annotations__.items():
        yield f"{name}.{member}: {annotation}"
    for member, value in vars(protocol).items():
        if isinstance(value, property):
            yield f"{name}.{member}: {inspect.signature(value.fget).return_annotation}"
        elif getattr(value, "__module__", "") == protocol.__module__ and is_shown(member):
            yield f"{name}.{member}{inspect.signature(value)}".replace("(self, ", "(", 1)


def is_shown(member):
    return not member.startswith("_") or member in ("__call__", "__len__", "__getitem__")


def shown(signature):
    """Drop the quotes of postponed annotations and a lonely self."""
    return signature.replace("'", "").replace('"', "").replace("(self)", "()")


@pytest.mark.parametrize(("protocol", "kind"), KINDS.items(), ids=KINDS.values())
def test_every_hook_is_documented_with_its_real_signature(protocol, kind):
    (listed,) = blocks(SECTIONS[kind], "text")
    assert listed.splitlines() == [shown(s) for s in signatures(protocol, kind)]


def test_the_hook_that_no_recipe_chooses_from_is_documented_with_its_real_signature():
    (listed,) = blocks(SECTIONS["command"], "text")
    assert listed.strip() == shown(f"def command{inspect.signature(hookspecs.command)}")


def test_there_is_a_section_for_every_hook_and_no_other():
    assert set(SECTIONS) == set(HOOKS)


@pytest.fixture
def module(tmp_path):
    """Import a block from a file: field docstrings are read off the source."""

    def load(source):
        path = tmp_path / "guide_example.py"
        path.write_text(source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location("guide_example", path)
        made = importlib.util.module_from_spec(spec)
        sys.modules["guide_example"] = made
        spec.loader.exec_module(made)
        return made

    yield load
    sys.modules.pop("guide_example", None)


@pytest.mark.parametrize("kind", HOOKS)
def test_the_example_of_a_hook_conforms(kind, module):
    (source,) = blocks(SECTIONS[kind], "python")
    registry = registry_of(module(source))
    (name,) = next(p for p in registry.plugins if p.name == "mine").provides[kind]
    table = dict(PARAMS.get(kind, {}))
    if kind == "policy":
        from alignkit.testing import tiny_model

        table["path"] = tiny_model()
    for case in checks("mine", {f"{kind}/{name}": table}, registry=registry):
        case.run()


@pytest.mark.parametrize("kind", KINDS.values())
def test_the_table_of_a_hook_chooses_its_example(kind, tmp_path, module):
    (source,) = blocks(SECTIONS[kind], "python")
    (table,) = blocks(SECTIONS[kind], "toml")
    (tmp_path / "mine.toml").write_text(
        f'extends = "{ROOT}/recipes/{BASES.get(kind, "grpo")}.toml"\n' + table
    )
    registry = registry_of(module(source))
    if not (ROOT / "data" / "tiny_policy").is_dir():
        pytest.skip("the tiny policy has not been made: data/README.md")
    node = recipe.resolve(read(tmp_path / "mine.toml"), registry)
    assert any(part.plugin.name == "mine" and part.kind == kind for part in node.walk())


def test_the_whole_plugin_at_the_top_is_twenty_lines_and_conforms(module):
    source = blocks(GUIDE.partition("## `")[0], "python")[0]
    lines = [line for line in source.splitlines() if line.strip()]
    assert len(lines) <= 20
    for case in checks("mine", registry=registry_of(module(source))):
        case.run()


def test_the_kinds_and_checks_the_guide_counts_are_all():
    for kind in HOOKS:
        assert f"`{kind}`" in GUIDE
