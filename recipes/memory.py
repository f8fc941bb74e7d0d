"""Write the table of memory into recipes/scale/README.md: each hardware overlay on each card.

``python recipes/memory.py`` after a change to an overlay, or to what memory is reckoned by
(``alignkit.estimate``); ``--check`` only says whether the table is up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from alignkit import plugins
from alignkit_doctor.fits import Fit, on_cards

README = Path(__file__).parent / "scale" / "README.md"
BEGIN, END = "<!-- table: python recipes/memory.py -->", "<!-- end of table -->"

GIB = 2**30
CARDS = {
    "RTX 4090": 23.6 * GIB,
    "A10G": 22.0 * GIB,
    "L4": 22.0 * GIB,
    "A100 40 GB": 39.4 * GIB,
    "A100 80 GB": 79.1 * GIB,
    "H100": 79.1 * GIB,
}
"""Bytes that CUDA has to give: less than the name says, by error correction and the driver."""


def table() -> Iterator[str]:
    """Yield the table's lines: GB at the peak and share of the card, of every overlay."""
    registry = plugins.load()
    columns = {name: on_cards(registry, size, 99) for name, size in CARDS.items()}
    heads = [f"{name}, {size / 1e9:.1f} GB" for name, size in CARDS.items()]
    yield f"| overlay | cards | {' | '.join(heads)} |"
    yield "|---" * (len(heads) + 2) + "|"
    for fits in zip(*columns.values(), strict=True):
        cells = [cell(fit) for fit in fits]
        yield f"| `{fits[0].recipe}.toml` | {fits[0].cards} | {' | '.join(cells)} |"


def cell(fit: Fit) -> str:
    """Return the peak and its share of the card, or that it does not fit."""
    share = f"{fit.needs / 1e9:.1f}, {fit.needs / fit.has:.0%}"
    return share if fit.fits else f"no: {fit.needs / 1e9:.1f}"


def written(text: str) -> str:
    """Return ``text`` with the table as it should be between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([before + BEGIN, "", *table(), "", END + after])


def main() -> int:
    """Write the table; with ``--check`` return 1 where it would change."""
    old = README.read_text(encoding="utf-8")
    new = written(old)
    if "--check" in sys.argv[1:]:
        return int(new != old)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
