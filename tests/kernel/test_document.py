"""What a recipe keeps of the files it extends where a ``use`` of it changes."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from alignkit import Component, Params, plan, recipe
from alignkit.document import Document, merge
from alignkit.errors import RecipeError
from alignkit.protocols import Algorithm, Dataset, LossType, Policy

BASE = """\
use = "toy"
seed = 3
n = 6
[loss]
use = "clip"
cliprange = 0.3
[policy]
use = "weights"
path = "model"
[eval]
every = 2
[eval.data]
use = "rows"
path = "data.txt"
[eval.extra.more]
use = "rows"
path = "data.txt"
[[trackers]]
use = "log"
label = "one"
"""


class FixedTable(Params[dict]):
    """A table of fixed shape."""

    every: int = 5
    """Steps."""

    def build(self, *, data: Dataset, extra: Mapping[str, Dataset] | None = None) -> dict:
        return {}


class Variant(Params[Algorithm]):
    """Another algorithm, which takes less."""

    n: int = 1
    """How many."""
    columns: Annotated[dict[str, str], Field(default_factory=dict)]
    """A value that is written as a table."""

    def provides(self, tables):
        return frozenset({"old_logprobs"})

    def build(
        self,
        *,
        loss: LossType,
        policy: Policy,
        eval: Annotated[dict, FixedTable] | None = None,
    ) -> Algorithm:
        return {}


class Wrapped(Params[LossType]):
    """A loss around another."""

    columns: Annotated[dict[str, str], Field(default_factory=dict)]
    """A value that is written as a table."""

    def provides(self, tables):
        return frozenset({"old_logprobs"})

    def build(self, *, inner: LossType, more: Sequence[LossType] = ()) -> LossType:
        return inner


class WrappedToo(Wrapped):
    """Another such loss."""


@pytest.fixture
def load(tmp_path, registry):
    def load_files(own, *overrides, base=BASE):
        (tmp_path / "data.txt").write_text("x y")
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "base.toml").write_text(base)
        (tmp_path / "own.toml").write_text('extends = "base.toml"\n' + own)
        return recipe.load(tmp_path / "own.toml", registry, (), overrides)

    (plugin, _), *_ = registry.offers["algorithm", "toy"]
    registry.offers["algorithm", "variant"] = [(plugin, Component("variant", Variant))]
    registry.offers["loss_type", "wrapped"] = [(plugin, Component("wrapped", Wrapped))]
    registry.offers["loss_type", "wrapped_too"] = [(plugin, Component("wrapped_too", WrappedToo))]
    return load_files


def test_a_variant_of_an_algorithm_extends_its_recipe(load, tmp_path):
    dumped = load('use = "variant"\n').dump()
    first = load("").dump()
    assert dumped["n"] == 1  # a value of the other algorithm, so not its 6
    assert {k: dumped[k] for k in ("loss", "policy", "eval")} == {
        k: first[k] for k in ("loss", "policy", "eval")
    }
    assert "trackers" not in dumped


def test_what_was_left_out_is_said_with_its_place_and_its_reason(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    node = load('use = "variant"\nn = 2\n')
    assert list(node.left_out) == [
        "seed (base.toml:2): a value of 'toy'; 'variant' stands in its place",
        "[trackers] (base.toml:18): 'variant' takes no such table",
    ]
    text = plan.text(node, tmp_path / "own.toml")
    assert all(f"#   {note}" in text for note in node.left_out)
    assert "left out" not in plan.text(load(""), tmp_path / "own.toml")


def test_own_values_lie_over_kept_tables(load):
    node = load('use = "variant"\n[eval]\nevery = 7\n[loss]\nuse = "clip"\n', "policy.path=other")
    dumped = node.dump()
    assert (dumped["eval"]["every"], dumped["policy"]["path"]) == (7, "other")
    assert dumped["eval"]["data"]["use"] == "rows"
    assert dumped["loss"]["cliprange"] == 0.3


def test_a_table_of_ones_own_that_is_not_taken_is_an_error_as_ever(load):
    with pytest.raises(RecipeError, match=r"own\.toml:3: trackers: 'variant' takes no 'trackers'"):
        load('use = "variant"\n[[trackers]]\nuse = "log"\n')


@pytest.mark.parametrize("typed", [True, False])
def test_use_may_change_on_the_command_line_too(load, typed):
    node = load("", "use=variant") if typed else load('use = "variant"\n')
    assert node.dump()["eval"]["every"] == 2


NESTED = BASE.replace(
    'use = "clip"\ncliprange = 0.3\n',
    'use = "wrapped"\n[loss.columns]\na = "1"\nb = "2"\n'
    '[loss.inner]\nuse = "clip"\ncliprange = 0.3\n[[loss.more]]\nuse = "clip"\ncliprange = 0.4\n',
)


def test_a_nested_table_keeps_what_its_new_component_takes(load):
    dumped = load('[loss]\nuse = "wrapped_too"\n', base=NESTED).dump()
    assert dumped["loss"]["inner"] == {"use": "clip", "cliprange": 0.3}
    assert dumped["loss"]["more"] == [{"use": "clip", "cliprange": 0.4}]
    node = load('[loss]\nuse = "clip"\n', base=NESTED)
    assert node.dump()["loss"] == {"use": "clip", "cliprange": 0.2}
    assert [note.split(" ")[0] for note in node.left_out] == [
        "[loss.columns]",
        "[loss.inner]",
        "[loss.more]",
    ]


@pytest.mark.parametrize("inline", [True, False])
def test_a_value_written_as_a_table_is_no_table_that_is_kept(load, inline):
    base = NESTED
    if inline:
        base = base.replace('[loss.columns]\na = "1"\nb = "2"\n', 'columns = {a = "1", b = "2"}\n')
    own = load('[loss]\nuse = "wrapped_too"\n[loss.columns]\nb = "3"\n', base=base).dump()
    assert own["loss"]["columns"] == {"b": "3"}  # with "a" of the other component: a wrong column
    assert load('[loss]\nuse = "wrapped_too"\n', base=base).dump()["loss"]["columns"] == {}


def test_two_changes_on_one_way_keep_what_both_take(load):
    own = 'use = "variant"\n[loss]\nuse = "wrapped_too"\n'
    dumped = load(own, base=NESTED).dump()
    assert dumped["loss"]["inner"]["cliprange"] == 0.3
    assert dumped["eval"]["every"] == 2


VALUE = st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2)
TABLE = st.recursive(
    st.dictionaries(st.sampled_from("abcd"), VALUE, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), VALUE | inner, max_size=3),
    max_leaves=6,
)


def tables_of(table: Any) -> dict[str, Any]:
    return {k: v for k, v in table.items() if isinstance(v, dict)}


@given(TABLE, TABLE)
def test_merging_over_another_use_is_merging_over_its_tables_alone(below, above):
    changed = Document({**below, "use": "x"})
    merge(changed, Document({**above, "use": "y"}))
    plain = Document({**tables_of(below), "use": "y"})
    merge(plain, Document({**above, "use": "y"}))
    assert changed.table == plain.table
