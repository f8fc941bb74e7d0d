"""One self-contained HTML page about runs: no network, nothing to install, opens from a disk.

Everything that comes from a run is data to the page: text is escaped on the way into HTML, the
JSON cannot close its script element, and a content security policy admits only our own script.

The charts are drawn by our own script, ``page.js``. The same page, 15 charts of 3 settings with 2
seeds and 200 steps, was built with each library inlined under the same policy, and opened in
headless Chromium on 2 busy cores; time until it is seen, median of 9, at 1280 and at 390 pixels:

==========================  =========  ==========  ===============
drawn by                    script     whole page  seen after
==========================  =========  ==========  ===============
page.js                     13 kB      0.29 MB     126 and 123 ms
Observable Plot 0.6         303 kB     0.58 MB     193 and 209 ms
Vega-Lite 6.4               829 kB     1.11 MB     1047 and 1169 ms
plotly.js 4.1, basic        1192 kB    1.47 MB     618 and 545 ms
==========================  =========  ==========  ===============

They look alike, light and dark. Under the pointer plotly tells what ours tells; Plot's tip is cut
off at a phone's edge; Vega-Lite has the browser's plain tip or takes one more package. A library
would save about 100 lines: legend, smoothing and axis serve all charts at once and stay ours.
For PNGs see :mod:`.png`.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from alignkit.lifecycle.files import beside
from alignkit.run_data.groups import Group
from alignkit_report.curves import Chart, charts, curve, points_of
from alignkit_report.markup import body, color, plain
from alignkit_report.samples import choose, spread

MOST_STEPS = 9
"""Steps of which samples are shown, per setting and kind."""
PAGE_SAMPLES, EACH = 4_000, 3
"""Approximate number of samples on a page; right and wrong ones of a step at most."""


def write(groups: Sequence[Group], path: Path, title: str, reference: str | None = None) -> None:
    """Write the page; an old one is replaced as a whole, so that a browser never sees half."""
    text = render(groups, title, reference)
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as file:
        # Half a character, as in a file that was cut, has no bytes in UTF-8.
        file.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def render(groups: Sequence[Group], title: str, reference: str | None = None) -> str:
    """Return the page as HTML; ``reference`` names the setting that others are compared with."""
    drawn = charts(groups)
    most = points_of(len(groups) * sum(len(c.metrics) for c in drawn))
    script, samples = _asset("page.js"), _samples(groups)
    payload = {
        "groups": [
            {"name": plain(g.name), "n": len(g.runs), "color": color(i), "stops": _stops(g)}
            for i, g in enumerate(groups)
        ],
        "charts": [_chart(c, groups, most) for c in drawn],
        "samples": samples,
    }
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "HASH": f"sha256-{digest}",
        "TITLE": escape(plain(title)),
        "STYLE": _asset("page.css"),
        "BODY": "\n".join(body(groups, drawn, title, bool(samples), reference)),
        "DATA": as_json(payload),
        "SCRIPT": script,
    }
    page = _asset("page.html")
    for name, text in parts.items():
        page = page.replace(f"<!--{name}-->", text)
    return page


def as_json(payload: Any) -> str:
    """Return JSON that is safe inside a script element.

    >>> as_json({"text": "</script>"})
    '{"text":"\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(payload, separators=(",", ":"), allow_nan=False)  # ASCII only
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return (files("alignkit_report") / name).read_text(encoding="utf-8").strip("\n")


def _chart(chart: Chart, groups: Sequence[Group], most: int) -> dict[str, Any]:
    return {
        "title": plain(chart.title),
        "section": chart.section,
        "unit": chart.unit,
        "labels": chart.labels,
        "curves": [[_points(g, metric, most) for metric in chart.metrics] for g in groups],
    }


def _stops(g: Group) -> list[dict[str, float]]:
    """Return where runs of the group were stopped early, so that its mean is over fewer."""
    stopped = [run for run in g.runs if run.reason and run.rows]
    return [{"step": r.rows[-1]["step"], "time": r.seconds} for r in stopped]


def _points(g: Group, metric: str, most: int) -> dict[str, Any] | None:
    found = curve(g, metric, most)
    if found is None:
        return None
    means = {name: values for name, values in vars(found).items() if name != "seeds"}
    return {**_short(means), "seeds": [_short(vars(seed)) for seed in found.seeds]}


def _short(lists: dict[str, list[float]]) -> dict[str, list[float]]:
    """Return numbers to six digits, which is more than a chart shows."""
    return {name: [float(f"{v:.6g}") for v in values] for name, values in lists.items()}


def steps_of(sets: int) -> int:
    """Return the steps of which samples are kept where a page has so many settings and kinds."""
    return min(MOST_STEPS, max(1, PAGE_SAMPLES // (2 * EACH * max(sets, 1))))


def _samples(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return samples of the first run of each group that saved some, held-out ones first."""
    chosen = list(_saved(groups))
    most = steps_of(len(chosen))
    return [
        {
            "name": name,
            "steps": [
                {"step": step, "rows": [vars(s) for s in choose(saved[step], EACH, EACH)]}
                for step in spread(sorted(saved), most)
            ],
        }
        for name, saved in chosen
    ]


def _saved(groups: Sequence[Group]) -> Iterator[tuple[str, dict[int, Path]]]:
    """Yield the name, and the files by step, of each setting's samples of each kind."""
    for g in groups:
        for kind, label in (("eval", "held out"), ("rollouts", "training")):
            found = ((run, run.samples(kind)) for run in g.runs)
            if first := next(((run, saved) for run, saved in found if saved), None):
                seed = f", seed {first[0].seed}" if len(g.runs) > 1 else ""
                yield plain(f"{g.name}{seed}: {label}"), first[1]
