"""The README of `answers` keeps its word: its examples, also in math-verify, and its map."""

import re
from pathlib import Path

import pytest

import alignkit_rewards.answers
from alignkit_rewards.answers import Conventions, judge

FOLDER = Path(alignkit_rewards.answers.__file__).parent
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([\w ]+) \| `(.+?)` \| `(.+?)` \| (\w+) \| (\w+) \|$", TEXT, re.M)
WORDS = {True: "right", False: "wrong"}


def test_the_table_of_kinds_is_read_whole():
    assert len(ROWS) == TEXT.count("| right | wrong |") + TEXT.count("| wrong | right |") > 12


@pytest.mark.parametrize(("kind", "gold", "answer", "here", "there"), ROWS)
def test_a_kind_is_decided_as_the_table_says(kind, gold, answer, here, there):
    from math_verify import parse, verify

    sides = [parse(f"${text}$", parsing_timeout=None) for text in (gold, answer)]
    assert WORDS[verify(*sides, timeout_seconds=None)] == there
    assert WORDS[judge([gold], answer, Conventions()).correct] == here


def test_the_example_at_the_top_works():
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    head, _, last = code.strip().partition("\n\n")
    call, _, comment = last.partition("\n# ")
    known = {}
    exec(head, known)
    assert repr(eval(call, known)) == comment.strip()


def test_every_file_is_on_the_map():
    files = {path.name for path in FOLDER.rglob("*.py")} - {"__init__.py"}
    assert files == set(re.findall(r"`(\w+\.py)`", TEXT.partition("## What it decides")[0]))
