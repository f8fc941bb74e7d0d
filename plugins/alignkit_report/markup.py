"""The page's HTML: tables, bars and the places that the script fills. All text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

import tomli_w

from alignkit.errors import shown
from alignkit.run_data.groups import Estimate, Group, differences, phases
from alignkit.run_data.models import stands_for
from alignkit.run_data.runs import duration
from alignkit.security.text import printable
from alignkit_report import pairs, tables
from alignkit_report.curves import SECTIONS, Chart

COLORS = (
    "#3b82d6", "#e07b25", "#2f9e6e", "#c94f7c", "#8a63d2", "#b08d00", "#1aa5b8", "#d1495b",
    "#6b8e23", "#8c6d5a",
)  # fmt: skip
"""Legible on white and on near-black."""
COUNTS = ("right", "format only", "neither", "length")
"""Columns in responses or tokens: one decimal is enough."""
MANY = 12
"""Values that differ between the plans; more than these are folded, so that charts come soon."""


def color(index: int) -> str:
    """Return the colour of a group: ten that are easy to distinguish, then others on the wheel."""
    if index < len(COLORS):
        return COLORS[index]
    return f"hsl({index * 137.5 % 360:.0f} 55% 52%)"


def plain(value: object) -> str:
    """Return text without characters that act on the page; not yet escaped."""
    return printable(str(value))


def body(
    groups: Sequence[Group],
    drawn: Sequence[Chart],
    title: str,
    samples: bool,
    reference: str | None = None,
) -> Iterator[str]:
    """Yield the page's elements; ``samples`` tells whether there are any to show.

    ``reference`` names the setting that others are compared with.
    """
    yield from _header(groups, title)
    yield '<section id="summary"><h2>Final and best values</h2>'
    yield from _summary(groups)
    yield "</section>"
    yield from _pairs(groups, reference)
    yield from _differences(groups)
    if drawn:
        yield _BAR
    for section in SECTIONS:
        if any(c.section == section for c in drawn):
            yield from _section(section)
    if samples:
        yield _SAMPLES
    yield from _times(groups)
    yield from _plans(groups)


def _header(groups: Sequence[Group], title: str) -> Iterator[str]:
    runs = [r for g in groups for r in g.runs]
    now = datetime.now().strftime("%Y-%m-%d %H:%M")
    of = f"{_count(len(runs), 'run')} of {_count(len(groups), 'setting')}"
    yield f"<header><h1>{escape(plain(title))}</h1>"
    yield f'<p class="soft">{of} · written {now} · alignkit report</p>'
    if any(r.status == "running" for r in runs):
        yield '<p class="soft">Some runs have not ended; write the report again to see more.</p>'
    yield "</header>"
    warnings = [w for r in runs for w in r.warnings]
    if warnings:
        items = "".join(f"<li>{escape(plain(w))}</li>" for w in warnings)
        yield f'<div class="warnings" role="note"><ul>{items}</ul></div>'


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _summary(groups: Sequence[Group]) -> Iterator[str]:
    found = tables.lines(groups)
    metric = tables.headline(groups)
    others = list(found[0].others) if found else []
    heads = [
        "setting",
        "seeds",
        "start",
        "final",
        "best",
        "at step",
        "state",
        "model",
        "time",
        *others,
    ]
    top = max((x.final.value for x in found if x.final), default=None)
    yield f'<p class="soft">Start, final and best: <code>{escape(plain(metric))}</code>.</p>'
    yield '<div class="scroll"><table><thead><tr>'
    yield "".join(f"<th>{escape(h)}</th>" for h in heads) + "</tr></thead><tbody>"
    for line in found:
        leads = len(found) > 1 and line.final is not None and line.final.value == top
        yield _row(heads, _summary_cells(line, leads))
    yield "</tbody></table></div>"
    yield from (f'<p class="soft">{escape(plain(note))}</p>' for note in tables.notes(groups))
    yield f'<p class="soft">{tables.BIAS}</p>'


def _pairs(groups: Sequence[Group], reference: str | None) -> Iterator[str]:
    """Yield the comparisons seed by seed, where settings share seeds."""
    if not groups:
        return
    metric = tables.headline(groups)
    found = pairs.found(groups, metric, reference)
    why = pairs.apart(groups, metric, reference)
    if not found and not why:
        return
    base = plain(pairs.reference_of(groups, reference).name)
    yield "<section id='pairs'><h2>Seed by seed</h2>"
    yield f'<p class="soft"><code>{escape(metric)}</code> less that of {escape(base)}.</p>'
    yield '<div class="scroll"><table><thead><tr>'
    yield "".join(f"<th>{escape(h)}</th>" for h in pairs.HEADS) + "</tr></thead><tbody>"
    for cells in pairs.rows(found):
        yield _row(pairs.HEADS, (f"<td>{escape(plain(cell))}</td>" for cell in cells))
    yield "</tbody></table></div>"
    yield from (f'<p class="soft">{escape(plain(note))}</p>' for note in (pairs.HOW, *why))
    yield "</section>"


def _row(heads: Iterable[str], cells: Iterable[str]) -> str:
    """Return a row of ``<td>`` elements, each with its heading for narrow screens."""
    named = (
        cell.replace("<td", f'<td data-head="{escape(plain(head))}"', 1)
        for head, cell in zip(heads, cells, strict=True)
    )
    return f"<tr>{''.join(named)}</tr>"


def _summary_cells(line: tables.Line, leads: bool) -> Iterator[str]:
    yield f"<td>{escape(plain(line.group.name))}</td>"
    yield f"<td>{len(line.group.runs)}</td>"
    yield _cell(line.start)
    yield _cell(line.final, "top" if leads else "")
    yield _cell(line.best)
    yield (
        f"<td>{line.best.step:g}</td>" if line.best and line.best.step is not None else "<td>–</td>"
    )
    yield f"<td>{escape(line.group.status())}</td>"
    yield f"<td>{escape(stands_for(line.group.runs))}</td>"
    yield f"<td>{duration(line.seconds)}</td>"
    for heading, found in line.others.items():
        yield _cell(found, digits=1 if heading in COUNTS else None)


def _cell(found: Estimate | None, kind: str = "", digits: int | None = None) -> str:
    if found is None:
        return "<td>–</td>"
    value, _, error = found.text(digits or (1 if abs(found.value) >= 2 else 3)).partition(" ± ")
    note = f"n = {found.n} runs" if found.over == "seeds" else "error over examples"
    mark = f' class="{kind}"' if kind else ""
    return f'<td{mark} title="{note}">{value}{f" <small>± {error}</small>" if error else ""}</td>'


_BAR = """<div class="bar">
<div class="legend" id="legend" role="group" aria-label="settings"></div>
<div class="choice" role="group" aria-label="horizontal axis">
<button type="button" data-axis="step" aria-pressed="true">step</button>
<button type="button" data-axis="time" aria-pressed="false">wall-clock</button>
</div>
<div class="choice" role="group" aria-label="bands">
<button type="button" data-band="error" aria-pressed="true">± 1.96 s.e.</button>
<button type="button" data-band="range" aria-pressed="false">min to max</button>
</div>
<label>smoothing
<input type="range" id="smoothing" min="0" max="0.95" step="0.05" value="0"></label>
</div>
<p class="soft">Thick lines are means over seeds, thin ones single seeds. Bands are ± 1.96 standard
errors (1.96 σ / √n) over seeds, or with a single seed over the evaluation's examples where it was
logged; "min to max" makes them reach from the smallest seed to the largest. ✕ marks where a run was
stopped; from there on a mean is over fewer seeds.
Single seeds and bands are drawn while at most 8 settings are shown.</p>"""

_SAMPLES = """<section><h2>Samples over time</h2>
<div class="pick"><select id="which" aria-label="whose samples"></select>
<label>step <input type="range" id="when" min="0" value="0"></label>
<strong id="step"></strong></div>
<p class="soft">The first three right and the first three wrong responses of each file.</p>
<div class="samples" id="samples"></div></section>"""


def _section(name: str) -> Iterator[str]:
    grid = f'<div class="charts" data-section="{name}"></div>'
    if name == SECTIONS[-1]:
        yield f"<section><h2>{name}</h2><details><summary>show</summary>{grid}</details></section>"
    else:
        yield f"<section><h2>{name}</h2>{grid}</section>"


def _differences(groups: Sequence[Group]) -> Iterator[str]:
    found = differences(groups)
    if not found:
        return
    yield "<section><h2>What differs between the plans</h2>"
    if len(found) > MANY:
        yield f"<details><summary>{len(found)} values</summary>"
    yield '<div class="scroll"><table class="values"><thead><tr>'
    heads, rows = ["key", *(g.name for g in groups)], [[k, *values] for k, values in found.items()]
    if len(groups) > len(found):  # the longer side runs downwards
        heads, *rows = [
            list(column) for column in zip(*[["setting", *heads[1:]], *rows], strict=True)
        ]
    yield "".join(f"<th>{escape(plain(head))}</th>" for head in heads) + "</tr></thead><tbody>"
    for row in rows:
        yield _row(heads, (f'<td class="value">{escape(plain(cell))}</td>' for cell in row))
    yield f"</tbody></table></div>{'</details>' if len(found) > MANY else ''}</section>"


def _times(groups: Sequence[Group]) -> Iterator[str]:
    by_group = [(g, found) for g in groups if (found := phases(g))]
    if not by_group:
        return
    names = list(dict.fromkeys(name for _, found in by_group for name in found))
    paint = {name: color(i) for i, name in enumerate(n for n in names if n != "other")}
    paint["other"] = "var(--line)"
    longest = max(sum(found.values()) for _, found in by_group)
    yield '<section><h2>Where the time went</h2><div class="tall"><div class="time">'
    for g, found in by_group:
        total = sum(found.values())
        bars = "".join(
            f'<span title="{_share(n, s, total)}" style="width:{s / longest:.2%};'
            f'background:{paint[n]}"></span>'
            for n, s in found.items()
        )
        yield f'<span>{escape(plain(g.name))}</span><div class="stack">{bars}</div>'
        yield f"<span>{duration(total)}</span>"
    keys = "".join(
        f'<span><i style="background:{paint[n]}"></i>{escape(plain(n))}</span>' for n in names
    )
    yield f'</div></div><div class="keys">{keys}</div></section>'


def _share(name: str, seconds: float, total: float) -> str:
    return escape(plain(f"{name}: {duration(seconds)}, {seconds / total:.0%}"))


def _plans(groups: Sequence[Group]) -> Iterator[str]:
    yield "<section><h2>Plans</h2>"
    yield '<div class="tall">'
    for g in groups:
        for run in g.runs:
            name = escape(plain(f"{g.name}, seed {run.seed}: {shown(run.path)}"))
            yield f"<details><summary>{name}</summary><pre>{escape(plain(_facts(run.manifest)))}"
            yield f"\n{escape(plain(tomli_w.dumps(run.plan)))}</pre></details>"
    yield "</div></section>"


def _facts(manifest: Mapping[str, Any]) -> str:
    """Return when, where and with what the run was made, from the manifest, as comment lines."""
    versions = manifest.get("versions") or {}
    facts = {
        "started": manifest.get("started"),
        "command": " ".join(map(str, manifest.get("command") or ())),
        "git": manifest.get("git"),
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
        "hardware": manifest.get("hardware"),
    }
    return "".join(f"# {k}: {v}\n" for k, v in facts.items() if v)
