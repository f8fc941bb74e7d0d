"""Documents end to end, cut into windows of equal length.

T_i = tokens of a document, prompt and response. A window's tokens also see those of the documents
before theirs in the window, as in the packed data of most pretraining.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from alignkit.engine.tokens import TrainRow


def on_all_tokens(row: TrainRow) -> TrainRow:
    """Return a row whose prompt is learned, too: all but its first token, which nothing precedes.

    >>> row = on_all_tokens(TrainRow((1, 2, 3), (4, 5)))
    >>> row.prompt_ids, row.trained_ids
    ((1,), (2, 3, 4, 5))
    """
    response = (*row.prompt_ids[1:], *row.response_ids)
    return replace(row, prompt_ids=row.prompt_ids[:1], response_ids=response, given=None)


def windows(documents: Sequence[TrainRow], length: int) -> list[TrainRow]:
    """Return windows that predict ``length`` tokens from as many; the last may be shorter.

    Every trained token of the documents is trained in exactly one window, except the very first
    token, if it is one. Windows without a trained token are left out.

    >>> [(w.prompt_ids, w.response_ids) for w in windows([TrainRow((1,), (2, 3, 4, 5))], 3)]
    [((1,), (2, 3, 4)), ((4,), (5,))]
    """
    ids = [i for row in documents for i in (*row.prompt_ids, *row.response_ids)]
    given = [g for row in documents for g in _given(row)]
    cuts = range(0, len(ids) - 1, length)
    return [
        TrainRow((ids[at],), tuple(ids[at + 1 : end]), given=tuple(given[at + 1 : end]))
        for at, end in ((at, at + length + 1) for at in cuts)
        if not all(given[at + 1 : end])
    ]


def _given(row: TrainRow) -> tuple[bool, ...]:
    """Return for each token of a document whether it is only read, (T_i,)."""
    return (True,) * len(row.prompt_ids) + (row.given or (False,) * len(row.response_ids))
