"""What other people's files hold, made fit to be shown: no pipe is waited for, no value is odd."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LARGEST = 1e300
"""Numbers beyond this are taken for none: sums and differences of them are not finite."""
MOST_STEPS = 2**53
"""Steps beyond this are no steps: a float does not tell them apart."""
DEEPEST = 20
"""Tables within tables that are kept."""

FACTS: Mapping[str, tuple[type, ...]] = {
    "status": (str,), "seconds": (int, float), "seed": (int,), "command": (list,),
    "notes": (list,), "started": (str,), "hardware": (dict,), "versions": (dict,),
    "components": (list,), "git": (dict,), "resumes": (list,), "result": (dict,), "reason": (str,),
    "title": (str,), "variants": (list,),
}  # fmt: skip
"""Types of what is read from a manifest and a sweep's notes."""


def text_of(path: Path) -> str:
    """Return the text of a file; OSError for what is none, as a pipe that nobody writes to."""
    if path.exists() and not path.is_file():
        raise OSError(f"{path.name} is no file")
    return path.read_text(encoding="utf-8", errors="replace")


def json_of(text: str) -> Any:
    """Return a JSON value; ValueError for whatever cannot be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def number_of(value: Any) -> int | float | None:
    """Return a number that can be computed with, None for anything else."""
    if type(value) is float:  # nearly all are
        return value if -LARGEST < value < LARGEST else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -LARGEST < value < LARGEST else None


def step_of(value: Any) -> int | None:
    """Return a whole number of steps, None for anything else."""
    number = number_of(value)
    if number is None or number != math.floor(number) or not 0 <= number <= MOST_STEPS:
        return None
    return int(number)


def sayable(text: str) -> str:
    """Return a text that can be written: halves of characters as escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def plain(value: Any, depth: int = 0) -> Any:
    """Return a value of tables, lists, texts and numbers that can be written as JSON and TOML."""
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
    """Return the facts of a JSON file whose types are right; a warning for each of the others."""
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
