"""Which recipes ``alignkit doctor`` says fit."""

import pytest

from alignkit import plugins
from alignkit_doctor.diagnosis import Diagnosis, fitting
from alignkit_doctor.fits import Fit, on_cards, on_the_cpu
from alignkit_doctor.machine import Card, Torch
from alignkit_doctor.words import report

GB = 10**9
REGISTRY = plugins.load()


@pytest.mark.parametrize(
    ("needs", "enough", "fits"), [(9.0, True, True), (9.6, True, False), (1.0, False, False)]
)
def test_a_margin_stays_free_and_cards_must_be_there(needs, enough, fits):
    assert Fit("r", needs * GB, 10 * GB, 2, enough).fits is fits


def test_every_recipe_of_the_embedded_model_fits_a_laptop():
    found = on_the_cpu(REGISTRY, 8 * GB)
    assert {fit.recipe for fit in found} >= {"grpo", "sft", "evaluate", "expert_iteration", "dpo"}
    assert all(fit.fits and fit.cards == 0 for fit in found)
    assert not any(fit.fits for fit in on_the_cpu(REGISTRY, 0.1 * GB))


def test_cards_that_are_not_there_make_an_overlay_not_fit():
    one = {fit.recipe: fit for fit in on_cards(REGISTRY, 85 * GB, 1)}
    two = {fit.recipe: fit for fit in on_cards(REGISTRY, 85 * GB, 2)}
    assert one["hardware-2gpu"].cards == 2
    assert (one["hardware-2gpu"].fits, two["hardware-2gpu"].fits) == (False, True)
    assert one["hardware-80gb"].fits


def test_without_the_plugin_an_overlay_needs_it_is_left_out():
    assert on_cards(plugins.load(["vllm"]), 85 * GB, 1) == []


def test_the_smallest_card_decides(made_up):
    cards = [Card("H100", 85 * GB), Card("L4", 23 * GB)]
    machine = made_up(torch=Torch(version="2.13.0", cuda="13.0", cards=cards))
    found = {fit.recipe: fit for fit in fitting(machine, REGISTRY)}
    assert found["hardware-24gb"].has == 23 * GB
    assert found["hardware-80gb"].fits is False
    assert found["grpo"].has == machine.available


def test_what_fits_is_told_in_a_table(made_up):
    fits = [
        Fit("hardware-4x40gb", 33e9, 42e9, 4, False),
        Fit("hardware-40gb", 34e9, 42e9, 1),
        Fit("grpo", 0.4e9, 8e9),
    ]
    told = report(Diagnosis(made_up(), [], fits))
    lines = [" ".join(line.split()) for line in told.splitlines()]
    assert lines[lines.index("RECIPE FITS NEEDS HAS ON") :][1:4] == [
        "hardware-4x40gb no 33.0 GB 42.0 GB 4 cards, not so many here",
        "hardware-40gb yes 34.0 GB 42.0 GB 1 card",
        "grpo yes 0.4 GB 8.0 GB CPU",
    ]
    assert told.endswith("ready")
