"""Responses of a run in the forms that other programs take, and what alpaca_eval gives back."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
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


def responses(folder: Path, name: str, step: int | None) -> list[Mapping[str, Any]]:
    """Return the responses of an evaluation set (``name``, "" for the unnamed), of one step.

    Without a step, of the last one. AlignkitError if the run kept none of it.
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
    return list(read_samples(saved[chosen]))


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
    """Return one JSON object per line: id, question, response, gold and the reward's parts."""

    def kept(row: Mapping[str, Any]) -> dict[str, Any]:
        scores = {k: v for k, v in row.items() if k == "reward" or k.endswith("_reward")}
        texts = {question: row["question"], response: row["response"]}
        more = {name: row[name] for name in ("gold", "by") if name in row}
        return {"id": row["id"], **texts, **more, **scores}

    return "".join(json.dumps(kept(row), ensure_ascii=False) + "\n" for row in rows)


def write(out: Path, text: str) -> None:
    """Write a file; AlignkitError if it cannot be written."""
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise AlignkitError(f"cannot write {shown(out)}: {error.strerror}") from error


def leaderboard(file: Path) -> str:
    """Return a leaderboard of alpaca_eval as a table, the best first."""
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or "win_rate" not in rows[0]:
        raise AlignkitError(f"{shown(file)}: no leaderboard of alpaca_eval: no column 'win_rate'")
    first = next(iter(rows[0]))  # the generator; its column has no name
    by = "length_controlled_winrate" if rows[0].get("length_controlled_winrate") else "win_rate"
    shown_columns = [name for name in COLUMNS if name in rows[0]]
    try:
        rows.sort(key=lambda row: -float(row[by]))
        cells = [[row[first], *(_cell(row[name]) for name in shown_columns)] for row in rows]
    except (ValueError, TypeError) as error:
        raise AlignkitError(f"{shown(file)}: not a number where one is due: {error}") from error
    return aligned(["model", *(COLUMNS[name] for name in shown_columns)], cells)


def _cell(text: str) -> str:
    return f"{float(text):.2f}".removesuffix(".00") if text else "–"
