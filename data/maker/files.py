"""The text files of the embedded default, as rows ready to be written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random

from alignkit_prompts.template import TextTemplate, bundled
from maker import tools, traces
from maker.problems import Problem, draw_distinct

TRAIN, TEST, SFT, PREFERENCES, PREFERENCES_TEST = 4096, 1024, 2048, 2048, 512
TOOLS, TOOLS_TEST = 256, 128
DIALOGUES = 512
"""Rows of each file."""
SFT_SLIPS = 0.1
"""Share of wrong solutions among the SFT traces, so that filtering them has something to do."""
PREFERENCE_SLIPS = 0.5
"""Share of preference pairs whose rejected response is wrong; in the others it lacks the tags."""

Row = Mapping[str, object]


def rows(seed: int) -> dict[str, list[Row]]:
    """Return the rows of each file by its path below ``data/``."""
    rng = Random(seed)
    drawn = draw_distinct(TRAIN + TEST, rng)
    train, test = drawn[:TRAIN], drawn[TRAIN:]
    large = tools.draw_distinct(TOOLS + TOOLS_TEST, Random(f"{seed} tools files"))
    asked = train[SFT : SFT + 2 * DIALOGUES]
    return {
        "problems/train.jsonl": [_problem(p) for p in train],
        "problems/test.jsonl": [_problem(p) for p in test],
        "sft/train.jsonl": [_trace(p, rng) for p in train[:SFT]],
        "preferences/train.jsonl": [_pair(p, rng) for p in train[-PREFERENCES:]],
        "preferences/test.jsonl": [_pair(p, rng) for p in test[-PREFERENCES_TEST:]],
        "tools/train.jsonl": [_problem(p) for p in large[:TOOLS]],
        "tools/test.jsonl": [_problem(p) for p in large[TOOLS:]],
        "chat/train.jsonl": [*map(_dialogue, asked[::2], asked[1::2])],
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


def _dialogue(*problems: Problem) -> Row:
    turns = []
    for problem in problems:
        turns += [
            {"role": "user", "content": problem.question},
            {"role": "assistant", "content": f"<think>{traces.tagged(problem)}"},
        ]
    return {"messages": turns}


def text(rows: Iterable[Row]) -> str:
    """Return rows as JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(folder: Path, seed: int) -> None:
    """Write every text file below ``folder``."""
    for name, content in rows(seed).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(content), encoding="utf-8", newline="\n")
