"""Tables as text: stable where they go to a file, fitted where they go to a terminal."""

import re
import sys

import pytest

from alignkit.text_table import aligned


def test_columns_are_two_spaces_apart_and_lines_end_where_their_text_does():
    text = aligned(("NAME", "N"), [("a", "10"), ("longer", "")])
    assert text.splitlines() == ["NAME    N", "a       10", "longer"]


def test_nothing_is_folded_styled_or_read_as_markup_in_a_file():
    long = "x" * 500
    text = aligned(("A", "B"), [("[red]:smile:", long)])
    assert text.splitlines()[1] == f"[red]:smile:  {long}"
    assert "\x1b" not in text


def test_characters_of_double_width_take_two_columns():
    # with len() in their place, "|" would stand one column further right in the second row
    assert aligned(("A", "B"), [("多", "|"), ("ab", "|")]).splitlines()[1:] == ["多  |", "ab  |"]


def test_a_terminal_gets_no_line_longer_than_it_is_wide(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    text = aligned(("NAME", "SETTINGS"), [("a", "word " * 30)])
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert max(map(len, plain.splitlines())) <= 40
    assert text.count("word") == 30


@pytest.mark.parametrize("rows", [[], [("x", "y")]])
def test_the_heads_stand_above_however_many_rows(rows):
    assert len(aligned(("A", "B"), rows).splitlines()) == 1 + len(rows)
