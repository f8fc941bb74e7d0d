"""Worked examples that stand before the question, in the form of the r1_zero prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from alignkit.errors import shown
from alignkit_prompts.template import PLACEHOLDER, Framed, bundled

BUNDLED = "r1_zero_shots.jsonl"
KEYS = ("question", "reasoning", "answer")


def with_shots(path: Path | None) -> Framed:
    """Return the r1_zero prompt with the worked examples of a file, or else the bundled ones.

    Each example is a turn of User and of Assistant, complete to its ``</answer>``; the question
    follows as one more turn. ValueError says what is wrong with the file.
    """
    preamble, turn = bundled("r1_zero.txt").split("\n", 1)
    before, after = turn.split(PLACEHOLDER)
    shots = read_shots(path)
    turns = [
        f"{before}{shot['question']}{after} {shot['reasoning']} </think> "
        f"<answer> {shot['answer']} </answer>\n"
        for shot in shots
    ]
    return Framed(f"{preamble}\n{''.join(turns)}{before}", after, stop=("</answer>",))


def read_shots(path: Path | None) -> Sequence[Mapping[str, str]]:
    """Return the rows of a JSONL file with the keys question, reasoning and answer."""
    name = shown(path) if path else BUNDLED
    rows = []
    for number, line in enumerate(_text(path, name).split("\n"), 1):
        if line.strip():
            rows.append(_row(line, f"{name}:{number}"))
    if not rows:
        raise ValueError(f"{name}: there is no worked example in it; one JSON object a line")
    return rows


def _text(path: Path | None, name: str) -> str:
    try:
        return (path or files("alignkit_prompts") / BUNDLED).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise ValueError(f"{name}: cannot be read: {error.strerror}") from error


def _row(line: str, place: str) -> Mapping[str, str]:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place}: not JSON: {error}") from error
    if not isinstance(row, dict) or any(not isinstance(row.get(key), str) for key in KEYS):
        raise ValueError(f"{place}: an example is an object with texts {', '.join(KEYS)}")
    if "</answer>" in f"{row['reasoning']}{row['answer']}":
        raise ValueError(
            f"{place}: leave the tags out; the prompt puts </answer> around the answer"
        )
    return row
