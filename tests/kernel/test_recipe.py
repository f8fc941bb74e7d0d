"""Validation: what a good recipe resolves to, and the text of every complaint about a bad one."""

import textwrap

import pytest

from alignkit import plan, recipe
from alignkit.errors import AlignkitError, RecipeError

GOOD = """\
use = "toy"
n = 6
[loss]
use = "clip"
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
[[trackers]]
use = "log"
"""


@pytest.fixture
def load(tmp_path, monkeypatch, registry):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.txt").write_text("x y")
    (tmp_path / "bad.txt").write_text("bad")
    (tmp_path / "model").mkdir()

    def load_text(text, *overrides):
        (tmp_path / "r.toml").write_text(textwrap.dedent(text))
        return recipe.load(tmp_path / "r.toml", registry, (), overrides)

    return load_text


def complaint(load, *args):
    with pytest.raises(RecipeError) as caught:
        load(*args)
    return str(caught.value)


def test_a_good_recipe_builds_its_slots_first(load, tmp_path):
    slots = load(GOOD).build().slots
    assert slots["loss"](None) == ("clip", 0.2)
    assert slots["policy"] == str(tmp_path / "model")
    assert slots["eval"] == {"every": 2, "data": ["x", "y"], "extra": {"more": ["x", "y"]}}
    assert slots["trackers"] == ["one", ""]


def test_the_dump_of_a_plan_is_a_recipe_that_resolves_to_the_same_plan(load, registry, tmp_path):
    import tomli_w

    first = load(GOOD)
    (tmp_path / "elsewhere").mkdir()
    again = tmp_path / "elsewhere" / "again.toml"
    again.write_text(tomli_w.dumps(first.dump()))
    assert recipe.load(again, registry).dump() == first.dump()


def test_every_problem_is_reported_at_once_with_its_line(load):
    text = """\
    use = "toy"
    nn = 3
    n = "6"
    [loss]
    use = "clp"
    [eval]
    every = 2
    [eval.data]
    use = "rows"
    path = "nope.txt"
    """
    said = complaint(load, text)
    assert "r.toml:2: nn: 'toy' takes no 'nn'. Did you mean 'n'?\n     2 | nn = 3" in said
    assert "it takes: seed, n, group, gives, fail, loss, policy, eval, trackers" in said
    assert "r.toml:3: n: Input should be a valid integer (got '6')" in said
    assert "r.toml:5: loss.use: unknown loss_type 'clp'. Did you mean 'clip'?" in said
    assert "(not searched: sad is broken: " in said
    assert "r.toml:10: eval.data.path: no such file or folder: nope.txt" in said


@pytest.mark.parametrize(
    ("text", "override", "says"),
    [
        ('use = "toy"', (), "r.toml:1: recipe: 'toy' needs a table [loss] choosing a loss_type."),
        ("n = 3", (), 'the recipe needs a line `use = "<algorithm>"`. Known: toy.'),
        ("use = 3", (), 'the recipe needs a line `use = "<algorithm>"`'),
        ('use = "tyo"', (), "r.toml:1: use: unknown algorithm 'tyo'. Did you mean 'toy'?"),
        (GOOD, ("n=0",), "-s n=0: n: Input should be greater than 0 (got 0)"),
        (GOOD, ("n=7",), "group: 2 does not divide n = 7"),
        (GOOD, ("n=nan",), "-s n=nan: n:"),
        (GOOD, ("loss=clip",), "-s loss=clip: loss: expected a table with a loss_type, got 'clip'"),
        (GOOD, ("trackers=3",), "expected [[trackers]] tables, got 3"),
        (GOOD, ("eval=3",), "expected a table, got 3"),
        (GOOD, ("eval.data.path=bad.txt",), "eval.data.path: bad.txt:1: a bad row"),
        (GOOD, ("policy.path=./typo",), "policy.path: no such file or folder: ./typo"),
        (GOOD, ('gives=["x"]',), "r.toml:4: loss.use: loss_type 'clip' reads old_logprobs, which "
         "'toy' does not provide with this recipe; it provides x"),
        (GOOD, ("loss.use=plain",), "loss_type 'plain' is offered by 2 plugins; write "
         '"toys/plain" (alignkit-toys 1.0) or "rivals/plain" (alignkit-rivals 2.0), '
         "or leave one out with -p no:rivals."),
        (GOOD, ("loss.use=nobody/clip",), "unknown loss_type 'nobody/clip'"),
        (GOOD, ("when=1979-05-27",), "'toy' takes no 'when'"),
    ],
)  # fmt: skip
def test_the_text_of_a_complaint(load, text, override, says):
    assert says in complaint(load, text, *override)


def test_a_qualified_name_settles_a_clash(load):
    assert load(GOOD, "loss.use=toys/plain").build().slots["loss"](None) == ("plain",)


def test_a_name_that_is_no_path_stays_a_hub_name(load):
    assert load(GOOD, "policy.path=Qwen/Qwen2.5-Math-1.5B").build().slots["policy"] == (
        "Qwen/Qwen2.5-Math-1.5B"
    )


def test_what_the_machine_lacks_is_told_without_building(load):
    node = load(GOOD, "policy.use=needy")
    (problem,) = recipe.missing(node)
    assert "needs a moon: pip install 'alignkit[moon]'" in str(problem)


def test_an_absent_package_is_named_with_the_component_that_wants_it(load):
    with pytest.raises(AlignkitError, match=r"policy 'unimportable' .*a_package_nobody_has"):
        load(GOOD, "policy.use=unimportable").build()


def test_the_plan_says_where_each_value_comes_from(load):
    said = plan.text(load(GOOD, "loss.cliprange=0.3", "policy.use=needy"), "r.toml")
    rows = {line.split("#")[0].strip(): line.split("#")[-1].strip() for line in said.splitlines()}
    assert rows["n = 6"] == "r.toml:2"
    assert rows["seed = 0"] == "default"
    assert rows["cliprange = 0.3"] == "-s loss.cliprange=0.3"
    assert rows['use = "clip"'] == "r.toml:4 (toys plugin, alignkit-toys 1.0)"
    assert "groups: 3" in said
    assert "needs a moon" in said
