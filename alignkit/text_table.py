"""Tables as text: fitted to a terminal, elsewhere plain and as wide as they need to be."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from io import StringIO

WIDEST = 100_000
"""Characters in a line that goes to a file or a pipe; nothing is folded there."""


def aligned(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows under their heads, in columns two spaces apart."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*heads, box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for row in rows:
        table.add_row(*row)
    terminal = sys.stdout.isatty()
    console = Console(
        file=StringIO(),
        force_terminal=terminal,
        no_color=not terminal,
        width=None if terminal else WIDEST,
        markup=False,  # names come from files, and may hold brackets
        emoji=False,
        highlight=False,
    )
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
