"""Judge every response of a file and write the verdicts with their reasons."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from alignkit import recipe, toml
from alignkit.abilities import judges
from alignkit.data_files.columns import half_surrogate
from alignkit.document import Document, merge
from alignkit.errors import AlignkitError, shown
from alignkit.overrides import typed
from alignkit.plugins import Registry
from alignkit.protocols import Closes, Example, Explains, Reward, RewardFn
from alignkit.shipped import path_from
from alignkit_grading import rows as saved
from alignkit_grading.rows import Row
from alignkit_grading.summary import Summary

BATCH = 1024
"""Responses handed to the reward at a time."""


def reward_for(reward: str, registry: Registry, overrides: Sequence[str] = ()) -> RewardFn:
    """Build the reward to grade with.

    ``reward`` is a component's name, or a TOML file: a recipe with a ``[reward]`` table, or that
    table's content alone. ``overrides`` are ``key=value`` on the reward's own keys. RecipeError
    lists everything that is wrong.
    """
    if reward.endswith(".toml"):
        document = _reward_table(toml.read(path_from(reward, Path.cwd())))
    else:
        document = typed([f"use={json.dumps(reward)}"])
    merge(document, typed(overrides))
    built: RewardFn = recipe.resolve(document, registry, "reward_fn").build()
    return built


def _reward_table(document: Document) -> Document:
    inner = document.table.get("reward")
    if not isinstance(inner, dict):
        return document
    origins = {key[1:]: o for key, o in document.origins.items() if key[:1] == ("reward",)}
    return Document(inner, origins, document.path)


def grade_file(
    path: Path,
    reward: RewardFn,
    *,
    columns: Mapping[str, str] | None = None,
    out: Path | None = None,
    limit: int | None = None,
) -> Summary:
    """Grade every response of a file and write the verdicts, as JSON Lines, beside it.

    Files are read as data sets are: in any format, and dots in a column's name reach into objects.
    ``columns`` maps "response", "gold", "question" and "id" to the file's columns; fields that
    are not mapped take the first of :data:`alignkit_grading.rows.GUESSES` that is there. A
    response column may hold a list: several samples of one question. ``out`` defaults to
    ``NAME.verdicts.jsonl`` beside ``path``; ``limit`` takes only the first rows. Raises
    AlignkitError, before anything is written, if the file cannot be read, if a row lacks a
    response or a gold answer, or if the verdicts would overwrite the responses.
    """
    target = _target(path, out)
    try:
        rows = saved.read(path, columns or {}, limit)
        summary = Summary(target)
        with _opened(target) as sink:
            for first in range(0, len(rows), BATCH):
                for verdict in _graded(rows[first : first + BATCH], reward, summary):
                    sink.write(_line(verdict))
    finally:
        if isinstance(reward, Closes):
            reward.close()
    return summary


def _target(path: Path, out: Path | None) -> Path:
    """Return the file for the verdicts; AlignkitError if that is the file of the responses."""
    device = path.is_absolute() and path.parts[1:2] in (("dev",), ("proc",))
    if out is None and (device or (path.exists() and not path.is_file())):
        raise AlignkitError(f"{shown(path)} is no file to put verdicts beside; choose --out")
    target = out or path.with_suffix(".verdicts.jsonl")
    there = target.exists() and path.exists()
    if target.absolute() == path.absolute() or (there and target.samefile(path)):
        raise AlignkitError(f"{shown(path)} would be overwritten by its own verdicts; choose --out")
    return target


def _opened(target: Path) -> TextIO:
    try:
        return target.open("w", encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise AlignkitError(f"{shown(target)}: verdicts cannot be written: {reason}") from error


def _line(verdict: Mapping[str, Any]) -> str:
    """Return a verdict as a line of JSON.

    Halves of surrogate pairs, which no UTF-8 file holds, are escaped: models write them.
    """
    text = json.dumps(verdict, ensure_ascii=False)
    return (json.dumps(verdict) if half_surrogate(text) else text) + "\n"


def _graded(rows: Sequence[Row], reward: RewardFn, summary: Summary) -> Iterator[dict[str, Any]]:
    started = time.perf_counter()
    rewards, reasons = _judge([r.response for r in rows], [r.example for r in rows], reward)
    summary.seconds += time.perf_counter() - started
    for row, result, why in zip(rows, rewards, reasons, strict=True):
        category = _category(result)
        summary.n += 1
        summary.total += result.total
        summary.squares += result.total**2
        summary.categories[category] += 1
        summary.reasons.update([why] if why else [])
        yield {
            "id": row.example.id,
            "line": row.line,
            "gold": _gold(row.example),
            "response": row.response,
            "reward": result.total,
            "parts": dict(result.parts),
            "category": category,
            "why": why,
        }


def _gold(example: Example) -> str | list[str]:
    return list(example.answers) if example.also_accepted else example.answer


def _judge(
    responses: Sequence[str], examples: Sequence[Example], reward: RewardFn
) -> tuple[Sequence[Reward], Sequence[str]]:
    """Return rewards and reasons; rewards that keep no reasons give empty ones."""
    if not judges(reward):
        return reward(responses, examples), [""] * len(responses)
    pending = reward.submit(responses, examples)
    rewards = pending.result()
    if not isinstance(pending, Explains):
        return rewards, [""] * len(responses)
    return rewards, [verdict.why for verdict in pending.judged()]


def _category(reward: Reward) -> str:
    """Return (format, answer) as 0 and 1; a reward without parts counts by its total."""
    answer = reward.parts.get("answer", reward.total) > 0
    formatted = reward.parts.get("format", float(answer)) > 0
    return f"({int(formatted)},{int(answer)})"
