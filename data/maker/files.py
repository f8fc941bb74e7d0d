"""The text files of the embedded default, as rows ready to be written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random

from alignkit_prompts.template import TextTemplate, bundled
from maker import traces
from maker.problems import Problem, draw_distinct

TRAIN, TEST, SFT, PREFERENCES, PREFERENCES_TEST, DIALOGUES = 4096, 1024, 2048, 2048, 512, 1200
"""Rows of each file."""
SFT_SLIPS = 0.1
"""Share of wrong solutions among the SFT traces, so that filtering them has something to do."""
LONGER = 20
"""One dialogue in so many has a second turn, which the data set ``hh`` drops."""
PREFERENCE_SLIPS = 0.5
"""Share of preference pairs whose rejected response is wrong; in the others it lacks the tags."""

Row = Mapping[str, str]


def rows(seed: int) -> dict[str, list[Row]]:
    """Return the rows of each file by its path below ``data/``."""
    rng = Random(seed)
    drawn = draw_distinct(TRAIN + TEST, rng)
    train, test = drawn[:TRAIN], drawn[TRAIN:]
    return {
        "problems/train.jsonl": [_problem(p) for p in train],
        "problems/test.jsonl": [_problem(p) for p in test],
        "sft/train.jsonl": [_trace(p, rng) for p in train[:SFT]],
        "preferences/train.jsonl": [_pair(p, rng) for p in train[-PREFERENCES:]],
        "preferences/test.jsonl": [_pair(p, rng) for p in test[-PREFERENCES_TEST:]],
        "dialogues/train.jsonl": [_dialogues(p, i, rng) for i, p in enumerate(train[:DIALOGUES])],
    }


def _problem(problem: Problem) -> Row:
    return {"question": problem.question, "answer": str(problem.answer)}


def _trace(problem: Problem, rng: Random) -> Row:
    right = rng.random() >= SFT_SLIPS
    return {
        **_problem(problem),
        "prompt": TextTemplate(bundled("r1_zero.txt")).render(problem.question),
        "response": traces.tagged(problem) if right else traces.slipped(problem, rng),
    }


def _pair(problem: Problem, rng: Random) -> Row:
    wrong = rng.random() < PREFERENCE_SLIPS
    return {
        **_problem(problem),
        "chosen": traces.tagged(problem),
        "rejected": traces.slipped(problem, rng) if wrong else traces.prose(problem),
    }


def _dialogues(problem: Problem, place: int, rng: Random) -> Row:
    """Return a pair in the form of Anthropic's HH: two whole dialogues."""
    pair = _pair(problem, rng)
    more = "" if place % LONGER else "\n\nHuman: Are you sure?\n\nAssistant: Yes."
    asked = f"\n\nHuman: {problem.question}\n\nAssistant:"
    return {name: f"{asked}{pair[name]}{more}" for name in ("chosen", "rejected")}


def text(rows: Iterable[Row]) -> str:
    """Return rows as JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(folder: Path, seed: int) -> None:
    """Write every text file below ``folder``."""
    for name, content in rows(seed).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(content), encoding="utf-8", newline="\n")
