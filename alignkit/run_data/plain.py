"""Read files that somebody else wrote, and reduce them to values that can be shown and stored."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LARGEST = 1e300
"""Larger numbers are treated as missing, because their sums may not be finite."""
MOST_STEPS = 2**53
"""Larger step numbers are invalid: a float cannot represent them exactly."""
DEEPEST = 20
"""Levels of nested tables that are kept."""

FACTS: Mapping[str, tuple[type, ...]] = {
    "status": (str,), "seconds": (int, float), "seed": (int,), "command": (list,),
    "notes": (list,), "started": (str,), "hardware": (dict,), "versions": (dict,),
    "components": (list,), "git": (dict,), "resumes": (list,), "result": (dict,), "reason": (str,),
    "title": (str,), "variants": (list,),
}  # fmt: skip
"""Types of the values that are read from a manifest and from a sweep's notes."""


def text_of(path: Path) -> str:
    """Return the text of a file; OSError if it is not a regular file, such as a pipe."""
    if path.exists() and not path.is_file():
        raise OSError(f"{path.name} is no file")
    return path.read_text(encoding="utf-8", errors="replace")


def json_of(text: str) -> Any:
    """Return a JSON value; ValueError if the text cannot be parsed."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def number_of(value: Any) -> int | float | None:
    """Return a number of usable size, None for anything else."""
    if type(value) is float:  # nearly all are
        return value if -LARGEST < value < LARGEST else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -LARGEST < value < LARGEST else None


def step_of(value: Any) -> int | None:
    """Return a valid step number, None for anything else."""
    number = number_of(value)
    if number is None or number != math.floor(number) or not 0 <= number <= MOST_STEPS:
        return None
    return int(number)


def sayable(text: str) -> str:
    """Return a text that can be encoded, with lone surrogates as escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def plain(value: Any, depth: int = 0) -> Any:
    """Return a value of tables, lists, strings and numbers that JSON and TOML can represent."""
    if depth > DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        return {sayable(str(k)): plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v, depth + 1) for v in value]
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else "a huge number"
    return sayable(str(value))


def facts_of(found: Any, name: str, warnings: list[str]) -> dict[str, Any]:
    """Return the entries of a JSON file that have the right type; warn about each of the others."""
    if not isinstance(found, Mapping):
        warnings.append(f"{name} holds no table of facts; left out")
        return {}
    facts = {k: v for k, v in plain(found).items() if v is not None}
    wrong = [k for k in facts if k in FACTS and not _fits(facts[k], FACTS[k])]
    warnings += [f"{name}: {key} is not of its type; left out" for key in wrong]
    return {k: v for k, v in facts.items() if k not in wrong}


def _fits(value: Any, types: tuple[type, ...]) -> bool:
    if int in types:
        return isinstance(value, types) and number_of(value) is not None
    return isinstance(value, types)
