"""What the variants of a sweep are, and what is wrong with one."""

import pytest

from alignkit.errors import RecipeError
from alignkit.run_data.groups import flatten
from alignkit_sweep.variants import Sweep


def test_a_grid_is_every_combination_and_variants_take_the_top_unless_they_say_their_own(sweep):
    swept = sweep(
        'recipe = "toy.toml"\nseeds = [0, 1]\n[grid]\nn = [4, 8]\nloss.cliprange = [0.1, 0.3]\n'
        "[variants.a]\n[variants.b]\ngrid.n = [6]\nseeds = [5]\n"
    )
    assert [v.name for v in swept.variants] == [
        "a/n=4,cliprange=0.1", "a/n=4,cliprange=0.3", "a/n=8,cliprange=0.1", "a/n=8,cliprange=0.3",
        "b",
    ]  # fmt: skip
    plans = {v.name: swept.plan(v) for v in swept.variants}
    assert plans["a/n=8,cliprange=0.1"]["n"] == 8
    assert plans["a/n=8,cliprange=0.1"]["loss"] == {"use": "clip", "cliprange": 0.1}
    assert (plans["b"]["n"], plans["b"]["seed"], plans["b"]["loss"]["cliprange"]) == (6, 5, 0.2)
    assert swept.variants[0].seeds == (0, 1)


def test_names_are_whole_only_where_they_would_clash(sweep):
    swept = sweep(
        'recipe = "toy.toml"\n[grid]\nloss.use = ["clip", "toys/plain"]\nn = [4]\ngroup = [1, 2]\n'
    )
    names = [v.name for v in swept.variants]
    assert names == ["loss=clip,group=1", "loss=clip,group=2",
                     "loss=toys_plain,group=1", "loss=toys_plain,group=2"]  # fmt: skip
    values = [flatten(swept.plan(v))["loss.use"] for v in swept.variants]
    assert values == ["clip", "clip", "toys/plain", "toys/plain"]


def test_values_change_a_table_whole_when_they_change_its_use(sweep):
    """As an overlay does: a cliprange left over from the recipe would not fit `plain`."""
    swept = sweep('recipe = "toy.toml"\n[variants.x.set]\nloss.use = "toys/plain"\n')
    assert swept.plan(swept.variants[0])["loss"] == {"use": "toys/plain"}


def test_factors_and_same_as_follow_the_recipe_below_them(sweep, place):
    (place / "big.toml").write_text("n = 40\n[loss]\ncliprange = 0.5\n")
    text = (
        'recipe = "toy.toml"\n[set]\nn = 10\n'
        "[factors]\nn = [0.5, 2]\nloss.cliprange = [0.3]\n[same_as]\ngroup = 'group'\n"
    )
    small, big = sweep(text), sweep(text, overlays=[place / "big.toml"])
    assert [v.name for v in small.variants] == ["n_x0.5", "n_x2"]
    # of the recipe's 4 and not of the 10 that is set; 0.2 * 0.3 is 0.06, not 0.06 and a bit
    assert [small.plan(v)["n"] for v in small.variants] == [2, 8]
    assert small.plan(small.variants[0])["loss"]["cliprange"] == 0.06
    assert [big.plan(v)["n"] for v in big.variants] == [20, 80]
    assert big.plan(big.variants[0])["loss"]["cliprange"] == 0.15


def test_same_as_takes_the_value_of_another_key(sweep):
    swept = sweep('recipe = "toy.toml"\n[same_as]\ngroup = "n"\n')
    assert swept.plan(swept.variants[0])["group"] == 4


def test_a_path_is_relative_to_the_sweep_file_it_stands_in(place, registry):
    (place / "deep").mkdir()
    (place / "deep/rows.txt").write_text("a b")
    (place / "deep/s.toml").write_text(
        'recipe = "../toy.toml"\n[set.eval.data]\nuse = "rows"\npath = "rows.txt"\n'
    )
    swept = Sweep(place / "deep/s.toml", registry)
    data = swept.plan(swept.variants[0])["eval"]["data"]
    assert data["path"] == str(place / "deep/rows.txt")


def test_a_shipped_recipe_is_found_from_anywhere(sweep):
    from alignkit.shipped import shipped

    with pytest.raises(RecipeError) as caught:  # there it is; these toys just do not know grpo
        sweep('recipe = "alignkit:recipes/grpo.toml"\n')
    assert caught.value.problems[0].origin.file == shipped() / "recipes/grpo.toml"


def test_the_command_line_is_laid_over_everything(sweep):
    text = 'recipe = "toy.toml"\n[variants.a.set]\nn = 8\n[variants.b.set]\nn = 6\nfail = "x"\n'
    swept = sweep(text, overrides=["n=2"])
    assert [swept.plan(v)["n"] for v in swept.variants] == [2, 2]


PROBLEMS = [
    ("seed = [0]\n", "s.toml:2: seed: a sweep takes no 'seed' here. Did you mean 'seeds'?"),
    ("stop.step = 1\n", "s.toml:2: stop.step: a sweep takes no 'step' here. Did you mean 'steps'?"),
    ("seeds = [1, 1]\n", "s.toml:2: seeds: a seed stands twice in [1, 1]"),
    ('seeds = "x"\n', "s.toml:2: seeds: Input should be a valid array"),
    ("[set]\nloss.use = 'cli'\n", "s.toml:3: loss.use: unknown loss_type 'cli'. Did you mean"),
    ("[grid]\nnn = [1]\n", "s.toml:3: nn: 'toy' takes no 'nn'. Did you mean 'n'?"),
    ("[grid]\nn = 3\n", "s.toml:3: grid.n: expected an array of values, got 3"),
    ("[grid]\nn = [5]\n", "toy.toml:3: group: 2 does not divide n = 5"),
    ("[factors]\nn = [0.3]\n", "s.toml:3: n: 0.3 times the recipe's 4 is no such number"),
    ("[factors]\nuse = [2]\n", "s.toml:3: use: 2 times the recipe's 'toy' is no such number"),
    ("[factors]\nseed = [2]\n", "s.toml:3: seed: this is relative to 'seed', which toy.toml does"),
    ("[same_as]\nn = 'm'\n", "s.toml:3: n: this is relative to 'm', which toy.toml does not set"),
    ("with = ['no.toml']\n", "s.toml:2: with: no such file: no.toml (looked for "),
    ("[variants.a]\nbest_of = 'b'\n[variants.b]\n", "no variant 'b' stands above this one; above:"),
    ("[variants.a]\n[variants.b]\n", "s.toml:3: variants.b: 'b' and 'a' are the same run"),
    ("[variants.'../x']\n", "variants.../x: '../x' names a folder: use letters, digits"),
    ("[grid]\nfail = ['a b', 'a+b', 'a_b']\n", "two variants would have the same folder"),
]


@pytest.mark.parametrize(("text", "message"), PROBLEMS)
def test_a_wrong_sweep_says_where_and_what(sweep, text, message):
    with pytest.raises(RecipeError) as caught:
        sweep('recipe = "toy.toml"\n' + text)
    assert message in str(caught.value)


def test_all_problems_of_all_variants_are_told_at_once_and_each_once(sweep):
    with pytest.raises(RecipeError) as caught:
        sweep(
            'recipe = "toy.toml"\n[set]\nbogus = 1\n'
            '[variants.a.set]\nn = "x"\n[variants.b.set]\nloss.cliprange = -1\n'
        )
    found = [str(p).partition(": ")[0] for p in caught.value.problems]
    assert found == ["s.toml:3", "s.toml:5", "s.toml:7"]


def test_a_recipe_is_needed_and_must_be_there(sweep):
    with pytest.raises(RecipeError, match='there is no line recipe = "FILE'):
        sweep("seeds = [1]\n")
    with pytest.raises(RecipeError, match=r"s.toml:1: recipe: no such file: moon.toml"):
        sweep('recipe = "moon.toml"\n')
