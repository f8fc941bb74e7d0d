"""What `alignkit_rewards.answers` decides beside math-verify, and what each of its stages is for.

    python tests/bench/bench_answers.py FILE...            # a table of verdicts and speed
    python tests/bench/bench_answers.py --stages FILE...   # what changes without each stage
    python tests/bench/bench_answers.py --kinds README.md FILE...  # writes its table of kinds

Files, by what their rows hold:

- JSON Lines with ``gold``, ``pred`` and ``expected`` (true, false or null), as graders' own test
  cases, of which those with a reason in ``debatable`` count as null; or with ``gold``,
  ``response`` in the r1_zero format and ``right`` (1 or 0);
- MATH (``problem``, ``solution``, ``answer``): an answer is tried in dollars, and the whole
  solution is tried as a response; the next row's answer is wrong, where it is another text;
- GSM8K (``question``, ``answer`` that ends in ``#### 72``): alike, an answer also with a unit;
- text with ``GOLD ## ANSWER`` in each line, right or wrong by the first word of the file's name;
- ``changed_numbers.txt``: words around ``{n}`` that make it another number, so all are wrong.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignkit_rewards.answers import Conventions, Verdict, judge
from alignkit_rewards.answers.text.normalize import ROW, canonical
from alignkit_rewards.answers.text.prose import answer_in
from alignkit_rewards.answers.text.unit_names import units_agree
from alignkit_rewards.formats import tagged_answer

ROOM = "alignkit_rewards.answers"
Grader = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Row:
    """One pair to judge; ``right`` is None where there is only to be no crash and no hang."""

    gold: str
    answer: str
    right: bool | None


def read(path: Path) -> Iterator[Row]:
    """Yield the pairs of a file."""
    lines = path.read_text("utf-8-sig").splitlines()
    if path.suffix == ".txt":
        for line in lines:
            gold, _, answer = (line + " ").partition(" ## ")
            if path.name.startswith("changed"):
                gold, answer = "417", answer.replace("{n}", "417").replace("{m}", "38")
            yield Row(gold, answer.strip(), path.name.startswith("right"))
        return
    rows = [json.loads(line) for line in lines]
    for row, other in zip(rows, [*rows[1:], rows[0]], strict=True):
        yield from pairs(row, other)


def pairs(row: dict[str, Any], other: dict[str, Any]) -> Iterator[Row]:
    """Yield what a row gives to judge; ``other`` is the row after it."""
    if "pred" in row:
        yield Row(row["gold"], row["pred"], None if row.get("debatable") else row["expected"])
    elif "response" in row:
        yield Row(row["gold"], tagged_answer(row["response"]) or "", bool(row["right"]))
    elif "problem" in row:
        gold, wrong = row["answer"], other["answer"]
        yield Row(gold, f"${gold}$", True)
        yield Row(gold, row["solution"], True)
        if gold != wrong:
            yield Row(gold, f"${wrong}$", False)
    else:
        worked, wrong = row["answer"], other["answer"].rpartition("####")[2].strip()
        gold = worked.rpartition("####")[2].strip()
        yield Row(gold, worked, True)
        yield Row(gold, f"{gold} dollars", True)
        if gold != wrong:
            yield Row(gold, f"{wrong} dollars", False)


# ---------------------------------------------------------------- graders


def ours(gold: str, answer: str) -> bool:
    """Judge by the package."""
    return judge([gold], answer, Conventions()).correct


def math_verify(gold: str, answer: str) -> bool:
    """Judge by math-verify as its documentation calls it."""
    from math_verify import parse, verify

    sides = [parse(text, parsing_timeout=None) for text in (gold, answer)]
    return bool(verify(*sides, timeout_seconds=None))


def math_verify_in_dollars(gold: str, answer: str) -> bool:
    """Judge by math-verify with both sides marked as mathematics."""
    return math_verify(f"${gold}$", f"${answer}$")


class LateError(BaseException):
    """A verdict took longer than the limit."""


def timed(grader: Grader, row: Row, limit: float) -> bool:
    """Return a verdict; what is late or raises counts as wrong."""
    try:
        signal.setitimer(signal.ITIMER_REAL, limit, limit)  # again, as sympy may swallow it
        verdict = grader(row.gold, row.answer)
        disarm()
        return verdict
    except (Exception, LateError):  # noqa: BLE001 graders under test may raise anything
        disarm()
        return False


def disarm() -> None:
    """Stop the clock, also while it rings."""
    try:
        signal.setitimer(signal.ITIMER_REAL, 0)
    except LateError:
        disarm()


def ring(*_: object) -> None:
    """Interrupt what is late."""
    raise LateError


def table(files: list[Path], limit: float) -> None:
    """Print a line per file: false positives and negatives of each grader, verdicts a second."""
    graders = (ours, math_verify_in_dollars, math_verify)
    print("| rows (right) | " + " | ".join(f"{g.__name__}: FP / FN, a second" for g in graders))
    for path in files:
        rows = list(read(path))
        cells = [f"{len(rows)} ({sum(r.right is True for r in rows)})"]
        for grader in graders:
            timed(grader, rows[0], 60.0)  # imports
            started = time.process_time()
            verdicts = [timed(grader, row, limit) for row in rows]
            rate = len(rows) / (time.process_time() - started)
            known = [(v, r) for v, r in zip(verdicts, rows, strict=True) if r.right is not None]
            wrong = [
                sum(v is not r.right and v is kind for v, r in known) for kind in (True, False)
            ]
            cells.append(f"{wrong[0]} / {wrong[1]}, {rate:,.0f}")
        print(f"| {path.parent.name}/{path.name} | " + " | ".join(cells) + " |", flush=True)


# ---------------------------------------------------------------- kinds

MARKS = ("<!-- kinds: made by the bench -->", "<!-- end of kinds -->")


def kinds(readme: Path, files: list[Path], limit: float) -> None:
    """Write the table of false positives and negatives per file between the marks of a README."""
    lines = [
        "| rows | right ones | wrong ones | false positives | false negatives |",
        "|---|---|---|---|---|",
    ]
    for path in files:
        rows = [row for row in read(path) if row.right is not None]
        verdicts = [timed(ours, row, limit) for row in rows]
        wrong = [sum(v and not r.right for v, r in zip(verdicts, rows, strict=True))]
        wrong += [sum(not v and bool(r.right) for v, r in zip(verdicts, rows, strict=True))]
        right = sum(bool(r.right) for r in rows)
        name = re.sub(r"^\d+_", "", path.stem).replace("_", " ")
        name = f"{path.parent.name.replace('_', ' ')}: {name}"
        lines.append(f"| {name} | {right} | {len(rows) - right} | {wrong[0]} | {wrong[1]} |")
    text = readme.read_text("utf-8")
    head, _, rest = text.partition(MARKS[0])
    if MARKS[1] not in rest:
        raise SystemExit(f"{readme} lacks the marks {MARKS}")
    tail = rest.partition(MARKS[1])[2]
    readme.write_text(head + "\n".join([MARKS[0], *lines, MARKS[1]]) + tail, "utf-8")


# ---------------------------------------------------------------- stages


def scalars_by_math_verify(gold: Any, answer: Any, rules: Conventions) -> bool:
    """Compare expressions by math-verify, with units, lists, intervals and relations as here."""
    same = math_verify_in_dollars(gold.text, answer.text)
    return units_agree(gold.unit, answer.unit) and same


def all_by_math_verify(gold: str, answer: str, rules: Conventions) -> Verdict:
    """Compare what is cut out of its prose, in one spelling, by math-verify."""
    sides = [canonical(answer_in(text)).replace(ROW, r"\\") for text in (gold, answer)]
    return Verdict(math_verify_in_dollars(*sides), "math-verify")


NEVER = re.compile(r"(?!)()")
STAGES: dict[str, tuple[str, str, Any]] = {
    "the answer in its prose": (
        "text.prose",
        "answer_in",
        lambda text, rules=None: text.strip(),
    ),
    "… after “the answer is”": ("text.prose", "_PHRASE", NEVER),
    "… in several boxes": ("text.prose", "_BETWEEN_BOXES", NEVER),
    "… and not a circumstance": ("text.runs", "_circumstance", lambda *a: 0),
    "… and not changed by words beside it": ("text.beside", "beside", lambda *a: ""),
    "… and not beside another number": ("text.runs", "related", lambda *a: False),
    "… with its arithmetic in words": ("text.spoken", "arithmetic", str),
    "… before a rough value": ("text.prose", "_ROUGHLY", NEVER),
    "spelling: all of it": ("text.normalize", "canonical", lambda text: " ".join(text.split())),
    "spelling: unicode": ("text.normalize", "plain_unicode", str),
    "styling": ("text.styling", "unstyled", str),
    "other languages": ("text.languages", "in_english", str),
    "other notations": ("text.notation", "plain_notation", str),
    "words as answers": (
        "text.named",
        "same_words",
        lambda g, a: g.strip().lower() == a.strip().lower(),
    ),
    "number words": ("text.numerals", "digits", str),
    "choice letters": ("text.words", "choice", lambda text: ""),
    "units: cut off": ("text.units", "split_unit", lambda text: (text, "")),
    "units: several in one quantity": ("text.quantities", "several_units", lambda text: None),
    "units: compared": ("text.unit_names", "units_agree", lambda gold, answer: True),
    "opposites": ("text.opposites", "contradicts", lambda gold, answer: False),
    "times of day": ("shapes.times", "same_time", lambda gold, answer: None),
    "percent signs": ("text.units", "split_percent", lambda text: (text, False)),
    "currency": ("text.units", "split_currency", lambda text: (text, "")),
    "expressions at points": ("algebra.compare", "agree", lambda a, b: None),
    "… at negative points": ("algebra.numeric", "contains", lambda tree, *marks: False),
    "… with digits as needed": ("algebra.numeric", "precision", lambda *trees: 60),
    "… modulo a prime": ("algebra.compare", "residue", lambda tree: 0),
    "decimals that round": ("algebra.compare", "_rounds", lambda *a: False),
    "numerals in a base": ("shapes.scalars", "_BASED", NEVER),
    "intervals and their inequalities": ("shapes.intervals", "as_intervals", lambda node: None),
    "equations by moving terms": ("shapes.relations", "_equivalent", lambda g, a: False),
    "equations are no named values": ("shapes.relations", "_names_a_value", lambda r: True),
    "inequalities side by side": ("shapes.relations", "_same_sides", lambda g, a, same: False),
    "inequalities in one variable": ("shapes.relations", "_one_variable", lambda g, a: True),
    "ratios": ("shapes.reading", "_proportion", lambda text, depth: None),
    "matrices as tuples": ("shapes.equality", "_vector", lambda scalar: None),
    "sums, integrals, matrix products": ("shapes.symbolic", "same", lambda gold, answer: False),
    "… guarded at points": ("shapes.symbolic", "_differ", lambda left, right: False),
    "readings that the gold decides": ("shapes.ambiguous", "other_reading", lambda gold, text: ""),
    "`algebra`, with math-verify in its place": (
        "shapes.scalars",
        "same_scalar",
        scalars_by_math_verify,
    ),
    "`algebra` and `shapes`, likewise": ("judge", "_against", all_by_math_verify),
}
"""What is switched off: module, name, and what stands in for it."""


def replace(module: str, name: str, stand_in: Any) -> list[tuple[Any, str, Any]]:
    """Put a stand-in wherever the package holds the thing; return how it was."""
    real = getattr(importlib.import_module(f"{ROOM}.{module}"), name)
    modules = [m for key, m in sys.modules.items() if key.startswith(ROOM)]
    places = [(m, key, real) for m in modules for key, v in vars(m).items() if v is real]
    for place, key, _ in places:
        setattr(place, key, stand_in)
    return places


def forget() -> None:
    """Empty the package's caches."""
    for key, module in sys.modules.items():
        if key.startswith(ROOM):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def stages(files: list[Path], limit: float) -> None:
    """Print what changes without each stage: right answers lost, wrong ones accepted."""
    rows = [row for path in files for row in read(path) if row.right is not None]
    base = [timed(ours, row, limit) for row in rows]
    print(f"| off | of {len(rows)} verdicts change | right ones lost | wrong ones accepted |")
    for title, (module, name, stand_in) in STAGES.items():
        places = replace(module, name, stand_in)
        forget()
        found = [timed(ours, row, limit) for row in rows]
        for place, key, real in places:
            setattr(place, key, real)
        changes = [
            (r, now) for r, was, now in zip(rows, base, found, strict=True) if was is not now
        ]
        lost = sum(r.right is True and not now for r, now in changes)
        accepted = sum(r.right is False and now for r, now in changes)
        print(f"| {title} | {len(changes)} | {lost} | {accepted} |", flush=True)


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("files", nargs="+", type=Path)
    options.add_argument("--stages", action="store_true", help="switch stages off, one by one")
    options.add_argument("--kinds", type=Path, help="the README whose table of kinds is written")
    options.add_argument("--limit", type=float, default=5.0, help="seconds for a verdict")
    chosen = options.parse_args()
    signal.signal(signal.SIGALRM, ring)
    logging.disable(logging.CRITICAL)  # math-verify warns that it has no time limit of its own
    if chosen.kinds:
        kinds(chosen.kinds, chosen.files, chosen.limit)
        return
    (stages if chosen.stages else table)(chosen.files, chosen.limit)


if __name__ == "__main__":
    main()
