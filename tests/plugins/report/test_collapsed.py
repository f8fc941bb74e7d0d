"""Seeds that collapsed."""

import pytest

from alignkit.run_data import paired

ACC = "eval/answer_reward"


def test_a_seed_that_fell_from_its_own_best_is_named(make_run, load):
    for seed, ends in enumerate([(0.5, 0.8), (0.8, 0.3), (0.8, 0.41)]):
        run = make_run(f"v/seed_{seed}", [{ACC: x} for x in ends], seed=seed)
    (g,) = load(run.parent)
    assert paired.collapsed(g, ACC) == {1: f"{ACC} fell from 0.8 at step 0 to 0.3"}


def test_a_seed_far_below_the_others_is_named(settings):
    (g,) = settings(v=[0.9, 0.2, 0.8, 0.85])
    assert paired.collapsed(g, ACC) == {1: f"{ACC} ended at 0.2, the other seeds at 0.85 (median)"}


def test_two_seeds_cannot_say_which_of_them_is_odd(settings):
    (g,) = settings(v=[0.9, 0.2])
    assert paired.collapsed(g, ACC) == {}


def test_a_run_stopped_as_diverged_is_named_with_the_reason(make_run, load):
    for seed in (0, 1):
        run = make_run(f"v/seed_{seed}", [{ACC: 0.5}], seed=seed)
    (run / "stopped.json").write_text('{"status": "diverged", "reason": "loss not finite"}')
    (g,) = load(run.parent)
    assert paired.collapsed(g, ACC) == {1: "loss not finite"}


def test_comparisons_come_with_and_without_the_seeds_that_collapsed(settings):
    """One collapsed seed in four makes the better setting look worse."""
    groups = settings(base=[0.5, 0.52, 0.5, 0.51], mine=[0.6, 0.6, 0.6, 0.1], other=[0.6] * 4)
    (whole, without), (plain, nothing) = paired.all_pairs(groups, ACC, groups[0])
    assert (whole.name, plain.name) == ("mine", "other")
    assert whole.difference < 0
    assert without.seeds == (0, 1, 2)
    assert without.difference == pytest.approx(0.28 / 3)
    assert without.p < 0.05 < whole.p
    assert nothing is None
