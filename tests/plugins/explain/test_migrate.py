"""Keys under the name of an earlier version: accepted, told, rewritten."""

from typing import ClassVar

import pytest
import tomli

from alignkit import AlignkitError, Params, recipe
from alignkit.errors import RecipeError
from alignkit.protocols import Algorithm, LossType
from alignkit.testing import registry_of
from alignkit_explain.migrate import migrated


class Clip(Params[LossType]):
    """A loss whose key had another name."""

    cliprange: float = 0.2
    """Clip."""
    renamed: ClassVar[dict[str, tuple[str, str]]] = {"clip": ("cliprange", "0.2")}

    def build(self) -> LossType:
        return lambda x: None


class Loop(Params[Algorithm]):
    """An algorithm whose slot had another name, and whose key too."""

    n_steps: int = 1
    """Steps."""
    renamed: ClassVar[dict[str, str | tuple[str, str]]] = {
        "objective": "loss",
        "steps": ("n_steps", "1.9.3"),
    }

    def build(self, *, loss: LossType) -> Algorithm:
        return None


@pytest.fixture
def registry():
    return registry_of(loss_type={"clip": Clip}, algorithm={"loop": Loop}, builtins=False)


@pytest.fixture
def write(tmp_path):
    def make(text, name="r.toml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return make


OLD = [
    'use = "loop"\nsteps = 3 # clip steps\n[objective]\nuse = "clip"\nclip = 0.5\n',
    'use = "loop"\nsteps=3\n[ objective ]  # the objective\nuse = "clip"\n"clip" = 0.5\n',
    'use = "loop"\nsteps = 3 # clip steps\nobjective = {use = "clip", clip = 0.5}\n',
    'use = "loop"\n  steps = 3\nobjective.use = "clip"\nobjective.clip = 0.5\n',
]


@pytest.mark.parametrize("text", OLD)
def test_old_names_mean_what_the_new_ones_mean(write, registry, text):
    node = recipe.load(write(text), registry)
    assert node.params.n_steps == 3
    assert node.children["loss"].params.cliprange == 0.5
    assert sorted(note.now for note in node.renamed) == ["cliprange", "loss", "n_steps"]
    assert str(node.children["loss"].origins["cliprange"]).startswith(str(write(text)))


@pytest.mark.parametrize("text", OLD[:3])
def test_a_recipe_is_rewritten_in_place(write, registry, text):
    path = write(text)
    before = recipe.load(path, registry).dump()
    found = migrated(path, registry)
    assert path.read_text() == text
    assert "+n_steps" in found.text.replace(" ", "")
    found.write()
    after = recipe.load(path, registry)
    assert after.renamed == ()
    assert after.dump() == before
    assert "clip steps" in path.read_text() or "# the objective" in path.read_text()
    assert migrated(path, registry).text.startswith("nothing to do")


def test_a_line_that_cannot_be_rewritten_is_left_to_its_author(write, registry):
    with pytest.raises(AlignkitError, match="change it by hand"):
        migrated(write('use = "loop"\n[loss]\nuse = "clip"\n"cl\\u0069p" = 0.5\n'), registry)


def test_the_files_below_a_recipe_are_rewritten_too(write, registry):
    base = write('use = "loop"\nsteps = 3\n[loss]\nuse = "clip"\n', "base.toml")
    path = write('extends = "base.toml"\n[loss]\nclip = 0.5\n')
    migrated(path, registry).write()
    assert tomli.loads(base.read_text())["n_steps"] == 3
    assert tomli.loads(path.read_text())["loss"] == {"cliprange": 0.5}


def test_both_names_at_once_are_refused(write, registry):
    path = write('use = "loop"\nn_steps = 2\nsteps = 3\n[loss]\nuse = "clip"\n')
    with pytest.raises(RecipeError, match="both are given"):
        recipe.load(path, registry)


def test_a_sweep_is_said_to_be_one(tmp_path, registry):
    sweep = tmp_path / "s.toml"
    text = 'recipe = "r.toml"\nseeds = [0]\n[variants.a.grid]\nsteps = [1, 2]\n'
    sweep.write_text(text)
    with pytest.raises(AlignkitError, match=r"s.toml is a sweep; migrate rewrites recipes"):
        migrated(sweep, registry)
    assert sweep.read_text() == text
    for wrong in ("[variants", "steps = 1\n"):  # what is no sweep has its own error
        sweep.write_text(wrong)
        with pytest.raises(AlignkitError) as refused:
            migrated(sweep, registry)
        assert "sweep;" not in str(refused.value)
