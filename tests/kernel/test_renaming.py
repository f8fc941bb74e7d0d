"""What is said of a key under an old name: the present one, and the release in which it goes."""

from importlib.metadata import version
from typing import Annotated, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignkit import Params, plugins, recipe, renaming
from alignkit.protocols import Algorithm
from alignkit.renaming import removed_in, schemas_of
from alignkit.testing import registry_of, run_cli

FILE = '''"""A loss."""
from alignkit import Component, Params, hookimpl
from alignkit.protocols import LossType


class Mine(Params[LossType]):
    """A loss."""

    ceiling: float = 1.0
    """Largest weight."""
    renamed = RENAMED

    def build(self) -> LossType:
        return lambda x: None


@hookimpl
def loss_type():
    yield Component("mine", Mine)
'''


class Pause(Params[None]):
    """A table of fixed shape."""

    every: int = 1
    """Steps."""
    renamed: ClassVar = {"each": ("every", "3.0")}


class Loop(Params[Algorithm]):
    """An algorithm with keys and a table's key that had other names."""

    n_steps: int = 1
    """Steps."""
    size: int = 1
    """Size."""
    renamed: ClassVar = {"steps": ("n_steps", "1.9.3"), "width": "size"}

    def build(self, *, pause: Annotated[dict | None, Pause] = None) -> Algorithm:
        return None


@pytest.fixture
def loops():
    return registry_of(algorithm={"loop": Loop}, builtins=False)


@pytest.fixture
def notes(tmp_path, loops):
    """Return what is said of a recipe with these lines, the package being called DIST."""

    def found(lines):
        (tmp_path / "r.toml").write_text(f'use = "loop"\n{lines}\n')
        node = recipe.load(tmp_path / "r.toml", loops)
        return [str(note).replace(node.plugin.dist, "DIST") for note in node.renamed]

    return found


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("steps = 3", "steps: is called 'n_steps' now; 'steps' goes in DIST 1.11"),
        ("pause.each = 3", "pause.each: is called 'every' now; 'each' goes in DIST 3.2"),
        ("width = 3", "width: is called 'size' now; 'width' works for 2 minor releases of DIST"),
    ],
    ids=["key", "key of a table", "no release given"],
)
def test_the_warning_names_the_release_in_which_the_old_name_goes(notes, line, wanted):
    (told,) = notes(line)
    assert f": {wanted}\n" in told


def test_describe_names_it_too(loops):
    from alignkit_explain import describe

    offer = loops.get("algorithm", "loop")
    dist = offer[0].dist
    lines = describe.component("algorithm", offer).splitlines()
    at = lines.index("Earlier names")
    assert lines[at + 1 : at + 4] == [
        f"  steps: called n_steps now; the old name goes in {dist} 1.11",
        f"  width: called size now; the old name works for 2 minor releases of {dist}",
        f"  pause.each: called every now; the old name goes in {dist} 3.2",
    ]


@given(st.integers(0, 99), st.integers(0, 99), st.sampled_from(["", ".0", ".7", "rc1", ".dev3"]))
def test_a_release_is_any_version_with_two_numbers(major, minor, rest):
    renamed = {"old": ("new", f"{major}.{minor}{rest}")}
    assert list(renaming.faults(renamed)) == []
    assert renaming.goes(renamed, "old", "pkg") == f"goes in pkg {major}.{minor + 2}"


def dry_run(tmp_path, monkeypatch, renamed):
    """Return what a dry run says of a recipe with an old key, of a plugin with these renames."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_loss.py").write_text(FILE.replace("RENAMED", repr(renamed)))
    (tmp_path / "r.toml").write_text(
        'extends = "alignkit:recipes/grpo.toml"\nplugins = ["my_loss.py"]\n'
        '[loss]\nuse = "mine"\ncap = 2.0\n'
    )
    return run_cli("run", "r.toml", "--dry-run")


WRONG = ["2", "", "soon", "0.x", "0.2 or so", "v0.2", None, 0.2]


@pytest.mark.parametrize("since", WRONG, ids=repr)
def test_what_is_no_release_is_told_as_a_fault_of_the_plugin(tmp_path, monkeypatch, since):
    done = dry_run(tmp_path, monkeypatch, {"cap": ("ceiling", since)})
    assert done.status == 2
    fault = "renamed['cap'] is ('ceiling', "
    assert f"loss: the plugin of my_loss.py has a fault: {fault}" in done.stderr
    assert 'such as ("cliprange", "0.2")' in done.stderr
    checked = run_cli("check", tmp_path / "my_loss.py")
    assert checked.status == 2
    assert fault in checked.stdout


@pytest.mark.parametrize(
    "value", [("ceiling",), ("ceiling", "0.2", "0.3"), (1, "0.2"), 3], ids=repr
)
def test_what_is_no_pair_is_refused_too(value):
    assert len(list(renaming.faults({"cap": value}))) == 1


def test_a_run_warns_with_the_release(tmp_path, monkeypatch):
    planned = dry_run(tmp_path, monkeypatch, {"cap": ("ceiling", "0.2")})
    assert planned.status == 0, planned.stderr
    said = "loss.cap: is called 'ceiling' now; 'cap' goes in my_loss.py 0.4"
    assert said in planned.stdout


def built_in_renames():
    """Yield the renames of the built-in components, those of their fixed tables included."""
    for offers in plugins.load().offers.values():
        for plugin, component in offers:
            if plugin.dist == "alignkit":
                yield from (s.renamed for s in schemas_of(component.params) if s.renamed)


def outlived(renamed, ours):
    """Return the old names that version ``ours`` should not know, or that name no end."""
    return [
        old
        for old, value in renamed.items()
        if isinstance(value, str)
        or tuple(map(int, removed_in(value[1]).split("."))) <= tuple(map(int, ours.split(".")[:2]))
    ]


def test_no_built_in_key_keeps_an_old_name_after_the_release_in_which_it_goes():
    assert outlived({"a": ("b", "0.2"), "c": ("d", "0.3"), "e": "f"}, "0.4.1") == ["a", "e"]
    for renamed in built_in_renames():
        assert outlived(renamed, version("alignkit")) == []
