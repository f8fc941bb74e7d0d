"""Sampled responses over time: a few right and wrong ones, prepared for display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignkit.run_data.runs import RunData, read_samples
from alignkit.security.text import printable

LONGEST = 3000
"""Characters of a response that are shown; the middle of a longer one is left out."""


@dataclass(frozen=True)
class Sample:
    """One judged response."""

    right: bool
    question: str
    response: str
    gold: str
    notes: str
    """Rewards, length and how the response ended."""


def category(row: Mapping[str, Any]) -> str:
    """Return what a row of ``rollouts/`` or ``eval/`` is: correct, format_only or neither.

    It is what the run wrote, or else follows from the row's rewards in the same way.
    """
    if "category" in row:
        return str(row["category"])
    if _full(row.get("answer_reward", row.get("reward"))):
        return "correct"
    return "format_only" if _full(row.get("format_reward")) else "neither"


def _full(reward: Any) -> bool:
    return isinstance(reward, int | float) and reward >= 1


def is_right(row: Mapping[str, Any]) -> bool:
    """Whether a row of ``rollouts/`` or ``eval/`` holds a right answer."""
    return category(row) == "correct"


def choose(path: Path, right: int, wrong: int) -> list[Sample]:
    """Return the first right and the first wrong responses of a file, as many of each at most."""
    rows = read_samples(path)
    good = [row for row in rows if is_right(row)][:right]
    bad = [row for row in rows if not is_right(row)][:wrong]
    return [sample_of(row) for row in (*good, *bad)]


def latest(run: RunData) -> tuple[str, int, Path] | None:
    """Return the kind, step and file of the last responses, evaluation before training."""
    for name in ("eval", "rollouts"):
        if files := run.samples(name):
            return name, max(files), files[max(files)]
    return None


def spread(steps: Sequence[int], most: int) -> list[int]:
    """Return at most ``most`` of the steps, evenly spaced, the first and last among them.

    >>> spread([0, 10, 20, 30, 40], 3)
    [0, 20, 40]
    >>> spread([0, 10, 20, 30, 40], 1)
    [40]
    """
    if len(steps) <= most:
        return list(steps)
    if most == 1:
        return [steps[-1]]
    return [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]


def sample_of(row: Mapping[str, Any]) -> Sample:
    """Return a row prepared for display."""
    prompt = row.get("question", row.get("prompt", ""))
    return Sample(
        right=is_right(row),
        question=_clipped(printable(str(prompt))),
        response=_clipped(printable(str(row.get("response", "")))),
        gold=_clipped(printable(str(row.get("gold", "")))),
        notes=", ".join(_notes(row)),
    )


def _notes(row: Mapping[str, Any]) -> list[str]:
    rewards = [k for k in row if k == "reward" or k.endswith("_reward")]
    notes = [
        f"{k.replace('_', ' ')} {row[k]:g}" for k in rewards if isinstance(row[k], int | float)
    ]
    if "response_length" in row:
        notes.append(f"{row['response_length']} tokens")
    if row.get("finish_reason") == "length":
        notes.append("cut off")
    return notes


def _clipped(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"
