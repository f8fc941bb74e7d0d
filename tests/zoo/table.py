"""The table of verdicts, as Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

_HEAD = """# The zoo

Every architecture that the installed transformers ({version}) maps to a causal language model,
tiny, with weights, biases and norms large enough that a wrong mask or position shows. Each case
is in float32 and compared with one plain call per row, without a cache: sampling (one row, groups,
rows that take the places of finished ones), the learner's log-probs and gradients (shared
prompts, rows of many lengths, layers recomputed, sdpa and eager attention), old and reference
log-probs.

- **right**: log-probs within {values} nats, gradients within {slopes} of their norm. *decode* is
  how it was sampled: steps written out, cached (the model's own forward and a cache of ours), or
  plain calls; *learn* is the pass that updates took: packed, padded, or one by one.
- **refused**: in one line, before there is a run directory.
- **WRONG**: neither. There must be none.

`python tests/zoo/zoo.py > LINES; python tests/zoo/zoo.py --table LINES` makes this file;
`pytest -m slow tests/zoo` runs all cases, plain `pytest` the six most used families.

| architecture | variant | verdict | decode | learn | log-probs | gradients |
|---|---|---|---|---|---|---|
"""


def write_table(lines: Sequence[Path]) -> None:
    """Write README.md from files of JSON lines; a later line of a case replaces an earlier one."""
    import transformers
    from check import SLOPES, VALUES
    from zoo import UNBUILT

    found = {}
    for file in lines:
        for line in file.read_text(encoding="utf-8").splitlines():
            case = json.loads(line)
            found[case["kind"], case["variant"]] = case
    head = _HEAD.format(version=transformers.__version__, values=VALUES, slopes=SLOPES)
    rows = [_row(found[key]) for key in sorted(found)]
    rest = [f"| {kind} | {reason} |" for kind, reason in sorted(UNBUILT.items())]
    counts = _counts(list(found.values()))
    text = "\n".join([*rows, "", counts, "", "Not tried, as no tiny model can be made:", "",
                      "| architecture | why |", "|---|---|", *rest, ""])  # fmt: skip
    (Path(__file__).parent / "README.md").write_text(head + text, encoding="utf-8")


def _row(case: dict) -> str:
    name = f"| {case['kind']} | {case['variant']} |"
    if case["wrong"]:
        return f"{name} **WRONG**: {_cell(case['wrong'])} | | | | |"
    if case["refused"]:
        return f"{name} refused: {_cell(case['refused'])} | | | | |"
    values, slopes = f"{case['values']:.0e}", f"{case['slopes']:.0e}"
    return f"{name} right | {case['decode']} | {case['learner']} | {values} | {slopes} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[:200]


def _counts(cases: list[dict]) -> str:
    wrong = sum(bool(case["wrong"]) for case in cases)
    refused = sum(bool(case["refused"]) for case in cases)
    kinds = len({case["kind"] for case in cases})
    return (
        f"{len(cases)} cases of {kinds} architectures: {len(cases) - wrong - refused} right, "
        f"{refused} refused, {wrong} wrong."
    )
