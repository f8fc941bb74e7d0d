"""One self-contained HTML page to browse the responses that runs saved.

A page holds at most ``MOST_BYTES`` of responses. Where a run saved more, questions are dropped in
an order fixed by their ids, so that those which stay have their responses of all steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from alignkit.run_data.groups import Group
from alignkit.run_data.runs import read_samples
from alignkit.run_data.transcripts import turn_count
from alignkit.security.text import printable
from alignkit_report import page
from alignkit_report.samples import sample_of

MOST_BYTES = 6_000_000
"""Bytes of JSON in a page: what a phone still opens in a few seconds."""
KINDS = {"eval": "held out", "rollouts": "training"}


@dataclass(frozen=True, slots=True)
class Source:
    """A file of responses."""

    name: int
    """Index of the run and kind it belongs to."""
    step: int
    path: Path


def write(groups: Sequence[Group], path: Path, title: str) -> None:
    """Write the page; an old one is replaced as a whole."""
    page.put(path, render(groups, title))


def render(groups: Sequence[Group], title: str, most: int = MOST_BYTES) -> str:
    """Return the page as HTML, with at most ``most`` bytes of responses."""
    names, sources = _sources(groups)
    rows, total = _chosen(sources, most)
    heading = f"{title}: responses"
    body = "\n".join(_body(heading, len(rows), total))
    return page.assembled(heading, body, {"sources": names, "rows": rows}, "rollouts.js")


def _sources(groups: Sequence[Group]) -> tuple[list[str], list[Source]]:
    names, found = list[str](), list[Source]()
    for group in groups:
        for run in group.runs:
            seed = f", seed {run.seed}" if len(group.runs) > 1 else ""
            for kind, label in KINDS.items():
                saved = run.samples(kind)
                found += [Source(len(names), step, file) for step, file in sorted(saved.items())]
                names += [printable(f"{group.name}{seed}: {label}")] if saved else []
    return names, found


def _chosen(sources: Sequence[Source], most: int) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of the page, and how many there are in the files.

    The files are read twice, so that only the rows that are kept are in memory together.
    """
    sizes = sorted(
        (_rank(row["key"]), at, i, len(page.as_json(row)) + 1)
        for at, source in enumerate(sources)
        for i, row in enumerate(_rows(source))
    )
    kept, size = set[tuple[int, int]](), 0
    for _, at, i, cost in sizes:
        size += cost
        if size > most:
            break
        kept.add((at, i))
    rows = [
        row
        for at, source in enumerate(sources)
        for i, row in enumerate(_rows(source))
        if (at, i) in kept
    ]
    return rows, len(sizes)


def _rank(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "backslashreplace")).digest()[:8]


def _rows(source: Source) -> Iterator[dict[str, Any]]:
    """Yield the responses of a file as the page's script takes them."""
    for row in read_samples(source.path):
        sample = sample_of(row)
        name = printable(str(row.get("id", "")))
        yield {
            **vars(sample),
            "source": source.name,
            "step": source.step,
            "id": name,
            "key": f"{name}\n{sample.question}",
            "reward": _number(row.get("reward")),
            "length": _number(row.get("response_length")),
            "count": turn_count(row),
        }


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else 0.0


def _body(title: str, kept: int, total: int) -> Iterator[str]:
    yield f"<header><h1>{escape(printable(title))}</h1>"
    most = f"{MOST_BYTES / 1e6:g} MB"
    left_out = f"; the page holds at most {most}, so {total - kept} others are left out"
    yield f'<p class="soft">{kept} of {total} saved responses{left_out * (kept < total)}</p>'
    yield "</header>"
    yield '<div class="filters bar"><label>of <select id="kind"><option value="">all</option>'
    yield "</select></label>"
    for name in ("step", "reward", "length", "turns"):
        yield f"<label>{name} {_bound(name, 'min')}–{_bound(name, 'max')}</label>"
    yield '<label>text <input type="search" id="text"></label>'
    yield '<label>order <select id="order">'
    yield "".join(f'<option value="{v}">{text}</option>' for v, text in _ORDERS.items())
    yield '</select></label></div><div class="pick"><strong id="found" aria-live="polite"></strong>'
    yield '<button type="button" id="all" hidden>back to all questions</button></div>'
    yield '<div class="samples" id="samples"></div>'
    yield '<p><button type="button" id="more">show more</button></p>'


def _bound(name: str, end: str) -> str:
    label = f"{'least' if end == 'min' else 'greatest'} {name}"
    return f'<input type="number" step="any" id="{name}-{end}" aria-label="{label}">'


_ORDERS = {
    "step": "first steps first",
    "late": "last steps first",
    "low": "lowest reward first",
    "high": "highest reward first",
    "long": "longest first",
    "turns": "most turns first",
}
