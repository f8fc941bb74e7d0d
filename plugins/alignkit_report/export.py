"""Responses of a run in the forms that other programs take, and what alpaca_eval gives back."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from alignkit.errors import AlignkitError, shown
from alignkit.run_data.runs import STEP, read_samples
from alignkit.security.names import name_problem, refused
from alignkit.text_table import aligned

COLUMNS = {
    "win_rate": "win rate, %",
    "length_controlled_winrate": "length-controlled, %",
    "standard_error": "standard error",
    "n_total": "comparisons",
    "avg_length": "mean characters",
}
"""Columns of a leaderboard that are shown, where they are there, and their headings."""

NEEDED = ("id", "question", "response")
"""Keys with a text that every response has."""
FIXED = ("id", "gold", "by", "reward")
"""Keys that other values have in JSON lines, besides those that end in ``_reward``."""


def responses(folder: Path, name: str, step: int | None) -> list[Mapping[str, Any]]:
    """Return the responses of an evaluation set (``name``, "" for the unnamed), of one step.

    Without a step, of the last one. AlignkitError if the run kept none of it, or if one has no
    text of its own.
    """
    if name and (problem := name_problem(name)):
        raise AlignkitError(refused(name, "a set", problem))
    where = folder / "eval" / name
    numbered = {STEP.fullmatch(file.stem): file for file in where.glob("step_*.jsonl")}
    saved = {int(found[1]): file for found, file in numbered.items() if found}
    chosen = max(saved, default=None) if step is None else step
    if chosen not in saved:
        steps = ", ".join(map(str, sorted(saved))) or "none"
        of = "" if step is None else f" of step {step}"
        raise AlignkitError(f"{shown(where)} has no responses{of}; steps kept: {steps}")
    rows: list[Mapping[str, Any]] = list(read_samples(saved[chosen]))
    for number, row in enumerate(rows, 1):
        if lacking := [name for name in NEEDED if not isinstance(row.get(name), str)]:
            raise AlignkitError(f"{shown(saved[chosen])}: response {number} has no {lacking[0]!r}")
    return rows


def alpaca_eval(rows: Sequence[Mapping[str, Any]], generator: str) -> str:
    """Return the JSON array that ``alpaca_eval --model_outputs`` takes.

    ``dataset`` is the value of the column that the evaluation was split ``by``, if it was.
    """
    array = [
        {
            "instruction": row["question"],
            "output": row["response"],
            "generator": generator,
            **({"dataset": row["by"]} if "by" in row else {}),
        }
        for row in rows
    ]
    return json.dumps(array, ensure_ascii=False, indent=1) + "\n"


def json_lines(rows: Sequence[Mapping[str, Any]], question: str, response: str) -> str:
    """Return one JSON object per line: id, question, response, gold and the reward's parts.

    ``question`` and ``response`` are the keys of those two; AlignkitError if another value has one.
    """
    for key in (question, response):
        if not key or key in FIXED or key.endswith("_reward") or question == response:
            raise AlignkitError(
                f"{key!r} cannot be the key of a text: it is empty, or another value has it"
            )

    def kept(row: Mapping[str, Any]) -> dict[str, Any]:
        scores = {k: v for k, v in row.items() if k == "reward" or k.endswith("_reward")}
        texts = {question: row["question"], response: row["response"]}
        more = {name: row[name] for name in ("gold", "by") if name in row}
        return {"id": row["id"], **texts, **more, **scores}

    return "".join(json.dumps(kept(row), ensure_ascii=False) + "\n" for row in rows)


def write(out: Path, text: str) -> None:
    """Write a file; AlignkitError if it cannot be written, or if the text has no UTF-8."""
    try:
        out.write_bytes(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        lost = error.object[error.start : error.end]
        raise AlignkitError(f"cannot write {shown(out)}: {lost!r} has no UTF-8") from error
    except OSError as error:
        raise AlignkitError(f"cannot write {shown(out)}: {error.strerror}") from error


def leaderboard(file: Path) -> str:
    """Return a leaderboard of alpaca_eval as a table, the best first.

    It ranks by the length-controlled win rate where there is one; models without it come last, by
    their win rate. AlignkitError if the file is none.
    """
    rows = _table(file)
    if not rows or "win_rate" not in rows[0]:
        raise AlignkitError(f"{shown(file)}: no leaderboard of alpaca_eval: no column 'win_rate'")
    first = next(iter(rows[0]))  # the generator; its column has no name
    shown_columns = [name for name in COLUMNS if name in rows[0]]
    try:
        rows.sort(key=_rank, reverse=True)
        cells = [[row[first], *(_cell(row[name]) for name in shown_columns)] for row in rows]
    except (ValueError, TypeError) as error:
        raise AlignkitError(f"{shown(file)}: not a number where one is due: {error}") from error
    return aligned(["model", *(COLUMNS[name] for name in shown_columns)], cells)


def _table(file: Path) -> list[dict[str, str]]:
    """Return the rows of a table with commas."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            return list(csv.DictReader(stream))
    except OSError as error:
        raise AlignkitError(f"cannot read {shown(file)}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise AlignkitError(f"{shown(file)}: no table with commas: {error}") from error


def _rank(row: Mapping[str, str]) -> tuple[bool, float]:
    controlled = row.get("length_controlled_winrate")
    rate = float(controlled or row["win_rate"])
    if not isfinite(rate):
        raise ValueError(f"{rate}")
    return bool(controlled), rate


def _cell(text: str) -> str:
    return f"{float(text):.2f}".removesuffix(".00") if text else "–"
