"""The table of memory is what its script makes, and an overlay fits the cards it is named for."""

import importlib.util
from pathlib import Path

import pytest

from alignkit import plugins
from alignkit_doctor.fits import on_cards

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("memory_table", ROOT / "recipes" / "memory.py")
memory = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(memory)

NAMED_FOR = {
    "hardware-24gb": ["RTX 4090", "A10G", "L4"],
    "hardware-40gb": ["A100 40 GB"],
    "hardware-4x40gb": ["A100 40 GB"],
    "hardware-2gpu": ["A100 40 GB"],
    "hardware-80gb": ["A100 80 GB", "H100"],
}
LEAST = 0.1
"""Share of a card that an overlay named for it leaves free."""


def test_the_table_is_what_the_script_makes():
    text = memory.README.read_text(encoding="utf-8")
    assert memory.written(text) == text, "run: python recipes/memory.py"


def test_a_table_out_of_date_is_noticed_and_mended(tmp_path, monkeypatch):
    old = memory.README.read_text(encoding="utf-8")
    copy = tmp_path / "README.md"
    copy.write_text(old.replace("| `hardware-80gb.toml` | 1 |", "| `hardware-80gb.toml` | 7 |"))
    monkeypatch.setattr(memory, "README", copy)
    monkeypatch.setattr("sys.argv", ["memory.py", "--check"])
    assert memory.main() == 1
    monkeypatch.setattr("sys.argv", ["memory.py"])
    assert memory.main() == 0
    assert copy.read_text(encoding="utf-8") == old


def test_every_overlay_for_hardware_is_named_for_a_card():
    found = {path.stem for path in (ROOT / "recipes" / "scale").glob("hardware-*.toml")}
    assert found == set(NAMED_FOR)
    assert {name for names in NAMED_FOR.values() for name in names} == set(memory.CARDS)


@pytest.mark.parametrize("card", memory.CARDS)
def test_an_overlay_fits_the_cards_it_is_named_for_with_a_margin(card):
    has = memory.CARDS[card]
    fits = {fit.recipe: fit for fit in on_cards(plugins.load(), has, 99)}
    for name, cards in NAMED_FOR.items():
        if card in cards:
            assert fits[name].needs <= (1 - LEAST) * has, name


@pytest.mark.parametrize(
    ("name", "cards"), [("hardware-24gb", 1), ("hardware-2gpu", 2), ("hardware-4x40gb", 4)]
)
def test_an_overlay_uses_all_the_cards_it_is_named_for(name, cards):
    fits = {fit.recipe: fit for fit in on_cards(plugins.load(), memory.CARDS["A100 40 GB"], 4)}
    assert fits[name].cards == cards


def test_a_small_card_is_not_told_to_take_what_is_for_a_large_one():
    fits = {fit.recipe: fit.fits for fit in on_cards(plugins.load(), memory.CARDS["L4"], 1)}
    assert [name for name, fit in fits.items() if fit] == ["hardware-24gb"]
