"""Grade saved responses: audit a reward against any model's outputs, without a model."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from alignkit import recipe, toml
from alignkit.errors import AlignkitError, shown
from alignkit.plugins import Registry
from alignkit.protocols import Example, Reward, RewardFn

BATCH = 1024
"""Responses handed to the reward at a time."""

GUESSES: Mapping[str, tuple[str, ...]] = {
    "response": ("response", "completion", "output"),
    "gold": ("gold", "answer", "ground_truth"),
    "question": ("question", "problem", "prompt"),
    "id": ("id", "prompt_id"),
}
"""Columns tried for each field that is not mapped; ``question`` and ``id`` may be missing."""

CATEGORIES: Mapping[str, str] = {
    "(1,1)": "format and answer right",
    "(1,0)": "format right, answer wrong",
    "(0,0)": "neither",
    "(0,1)": "answer right, format wrong",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One saved response."""

    line: int
    response: str
    example: Example
    columns: Mapping[str, Any]


@dataclass
class Summary:
    """What a reward says of a file of responses."""

    verdicts: Path
    """JSON lines, one per response: id, line, gold, response, reward, its parts, category, why."""
    n: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    """What decided the answers, where the reward tells."""
    total: float = 0.0
    squares: float = 0.0
    seconds: float = 0.0
    """Time spent in the reward."""

    @property
    def mean(self) -> float:
        """Mean reward."""
        return self.total / self.n if self.n else math.nan

    @property
    def standard_error(self) -> float:
        """Standard error of the mean reward, responses taken as independent; NaN below 2."""
        if self.n < 2:
            return math.nan
        variance = max(0.0, self.squares / self.n - self.mean**2) * self.n / (self.n - 1)
        return math.sqrt(variance / self.n)

    def table(self) -> str:
        """Return the category table, the reasons and the speed, for a terminal."""
        lines = ["(format, answer)         n    share"]
        for name, meaning in CATEGORIES.items():
            if (count := self.categories[name]) or name != "(0,1)":
                lines.append(f"{name:<6} {count:>19}  {_percent(count, self.n)}  {meaning}")
        lines += [
            f"total  {self.n:>19}",
            f"mean reward {self.mean:.4f} ± {self.standard_error:.4f}",
        ]
        if self.reasons:
            known = ", ".join(f"{why}: {n}" for why, n in self.reasons.most_common())
            lines.append(f"decided by {known}")
        rate = self.n / self.seconds if self.seconds else math.inf
        lines.append(f"{rate:.0f} verdicts a second; each one in {shown(self.verdicts)}")
        return "\n".join(lines)


def _percent(count: int, n: int) -> str:
    return f"{100 * count / n:5.1f} %" if n else "    - %"


def reward_for(reward: str, registry: Registry, overrides: Sequence[str] = ()) -> RewardFn:
    """Build the reward to grade with.

    ``reward`` is a component's name, or a TOML file: a recipe with a ``[reward]`` table, or that
    table's content alone. ``overrides`` are ``key=value`` on the reward's own keys. RecipeError
    lists whatever is wrong.
    """
    if reward.endswith(".toml"):
        document = _reward_table(toml.read(Path(reward)))
    else:
        document = toml.typed([f"use={json.dumps(reward)}"])
    toml.merge(document, toml.typed(overrides))
    built: RewardFn = recipe.resolve(document, registry, "reward_fn").build()
    return built


def _reward_table(document: toml.Document) -> toml.Document:
    inner = document.table.get("reward")
    if not isinstance(inner, dict):
        return document
    origins = {key[1:]: o for key, o in document.origins.items() if key[:1] == ("reward",)}
    return toml.Document(inner, origins, document.path)


def grade_file(
    path: Path,
    reward: RewardFn,
    *,
    columns: Mapping[str, str] | None = None,
    out: Path | None = None,
) -> Summary:
    """Grade every response of a JSON-lines file and write the verdicts beside it.

    ``columns`` maps "response", "gold", "question" and "id" to the file's columns; fields that
    are not mapped take the first of :data:`GUESSES` that is there. A response column may hold a
    list: several samples of one question. ``out`` defaults to ``NAME.verdicts.jsonl`` beside
    ``path``. Raises AlignkitError for an unreadable file or a missing column.
    """
    target = out or path.with_suffix(".verdicts.jsonl")
    if target.absolute() == path.absolute():
        raise AlignkitError(f"{shown(path)} would be overwritten by its own verdicts; choose --out")
    summary = Summary(target)
    rows = _rows(path, dict(columns or {}))
    first = list(islice(rows, BATCH))  # a file that cannot be read writes nothing
    if not first:
        raise AlignkitError(f"{shown(path)} holds no responses")
    try:
        with target.open("w", encoding="utf-8") as sink:
            while first:
                for verdict in _graded(first, reward, summary):
                    sink.write(json.dumps(verdict, ensure_ascii=False) + "\n")
                first = list(islice(rows, BATCH))
    finally:
        if close := getattr(reward, "close", None):
            close()
    return summary


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
            "gold": row.example.answer,
            "response": row.response,
            "reward": result.total,
            "parts": dict(result.parts),
            "category": category,
            "why": why,
        }


def _judge(
    responses: Sequence[str], examples: Sequence[Example], reward: RewardFn
) -> tuple[Sequence[Reward], Sequence[str]]:
    """Return rewards and reasons; rewards that keep no reasons give empty ones."""
    submit = getattr(reward, "submit", None)
    if submit is None:
        return reward(responses, examples), [""] * len(responses)
    pending = submit(responses, examples)
    rewards = pending.result()
    judged = getattr(pending, "judged", None)
    return rewards, [v.why for v in judged()] if judged else [""] * len(responses)


def _category(reward: Reward) -> str:
    """Return (format, answer) as 0 and 1; a reward without parts counts by its total."""
    answer = reward.parts.get("answer", reward.total) > 0
    formatted = reward.parts.get("format", float(answer)) > 0
    return f"({int(formatted)},{int(answer)})"


# ---------------------------------------------------------------- reading


def _rows(path: Path, columns: dict[str, str]) -> Iterator[Row]:
    """Yield the responses of a file, a list of samples one by one."""
    for number, record in _records(path):
        names = {name: _column(name, record, columns, path, number) for name in GUESSES}
        responses = record[names["response"]]
        identity = str(record.get(names["id"], number))
        several = isinstance(responses, list)
        for index, response in enumerate(responses if several else [responses]):
            if not isinstance(response, str):
                raise AlignkitError(
                    f"{shown(path)}:{number}: {names['response']!r} holds {response!r}, not text"
                )
            example = Example(
                f"{identity}#{index}" if several else identity,
                str(record.get(names["question"], "")),
                record[names["gold"]],  # text, a number or a list of accepted answers
                record,
            )
            yield Row(number, response, example, record)


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8") as lines:
            yield from _parsed(path, lines)
    except (OSError, UnicodeDecodeError) as error:
        raise AlignkitError(f"{shown(path)} cannot be read: {error}") from error


def _parsed(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise AlignkitError(f"{shown(path)}:{number}: not JSON: {error}") from error
        if not isinstance(record, dict):
            raise AlignkitError(f"{shown(path)}:{number}: not a JSON object")
        yield number, record


def _column(
    name: str, record: Mapping[str, Any], columns: Mapping[str, str], path: Path, line: int
) -> str:
    """Return the column that holds a field; ``""`` for an optional one that is missing."""
    tried = (columns[name],) if columns.get(name) else GUESSES[name]
    found = next((column for column in tried if column in record), "")
    if not found and (name in {"response", "gold"} or columns.get(name)):
        raise AlignkitError(
            f"{shown(path)}:{line}: no column {' or '.join(map(repr, tried))} for the {name}; "
            f"there are {', '.join(map(repr, record)) or 'none'}. Name it with --{name}."
        )
    return found
