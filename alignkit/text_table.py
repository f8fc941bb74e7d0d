"""Tables as text: fitted to a terminal, otherwise as wide as needed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from io import StringIO

from alignkit.security.text import printable

WIDEST = 100_000
"""Characters in a line that goes to a file or a pipe; nothing is folded there."""


def aligned(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows under their heads, in columns two spaces apart."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*map(printable, heads), box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for row in rows:
        table.add_row(*map(printable, row))  # before it is measured
    console = Console(
        file=StringIO(),
        width=None if sys.stdout.isatty() else WIDEST,
        markup=False,  # names come from files, and may hold brackets
        emoji=False,
        highlight=False,
    )
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
