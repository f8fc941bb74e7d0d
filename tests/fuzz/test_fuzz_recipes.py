"""Made-up recipes, overlays and overrides: an error that a person can read, or a recipe."""

import random

import tomli_w
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignkit import recipe
from alignkit.cli import main
from alignkit.errors import AlignkitError

QUIET = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
}


def made_up(targets, draw):
    overlay = targets.bad_recipe(draw) if draw.random() < 0.15 else None
    overrides = [targets.bad_override(draw) for _ in range(draw.choice((0, 0, 0, 0, 1, 2)))]
    return targets.bad_recipe(draw), overlay, overrides


def test_changed_recipes_load_or_are_refused(targets, cases, guarded, tmp_path):
    load = targets.Recipes(tmp_path)
    for number in range(cases):
        case = made_up(targets, random.Random(f"recipes/{number}"))
        with guarded(case):
            load(*case)
    assert 0.5 * cases < load.refused < cases  # both ways are taken


def test_tables_of_any_shape_load_or_are_refused(targets, cases, guarded, tmp_path):
    load = targets.Recipes(tmp_path)
    keys = st.sampled_from(
        [w for w in map(bytes.decode, targets.WORDS) if w.isidentifier()]
    ) | st.text(max_size=3)
    leaves = st.sampled_from(targets.VALUES) | st.integers() | st.floats() | st.text(max_size=9)
    tables = st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5)
    )
    parts = (
        "policy",
        "data",
        "prompt",
        "reward",
        "loss",
        "rollout",
        "optimizer",
        "eval",
        "watch",
        "trackers",
    )

    @settings(max_examples=cases, **QUIET)
    @given(
        use=st.sampled_from(["grpo", "sft", "dpo", "evaluate", "expert_iteration", "x"]),
        changed=st.dictionaries(st.sampled_from(parts) | keys, tables, max_size=5),
        over=st.lists(st.text(max_size=20), max_size=2),
    )
    def check(use, changed, over):
        try:
            text = tomli_w.dumps({"extends": "grpo.toml", **changed, "use": use})
        except (TypeError, ValueError):  # tomli_w takes no such value, so it is in no file
            return
        with guarded((use, changed, over)):
            load(text.encode("utf-8", "surrogatepass"), None, over)

    check()


def test_a_refused_recipe_leaves_nothing_behind(targets, cases, guarded, tmp_path, monkeypatch):
    load = targets.Recipes(tmp_path)
    file, out = load.folder / "bad.toml", tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    for number in range(max(20, cases // 10)):
        draw = random.Random(f"commands/{number}")
        file.write_bytes(targets.bad_recipe(draw))
        try:
            recipe.load(file, load.registry)
        except AlignkitError:
            with guarded(file.read_bytes()):
                done = CliRunner().invoke(main, ["run", str(file), "--out", str(out)])
                assert (done.exit_code, type(done.exception)) == (2, SystemExit)
                assert "Traceback" not in done.output
                assert done.output.strip()
    assert sorted(tmp_path.iterdir()) == before
