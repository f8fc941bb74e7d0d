"""Pairs of dialogues as Anthropic published them: https://github.com/anthropics/hh-rlhf."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from alignkit.data_files.columns import BadRow, text_of
from alignkit.errors import shown
from alignkit.protocols import Example
from alignkit_data.load import Loaded, stamp
from alignkit_data.rows import JSON, Fault, Row, read_rows

TURN = re.compile(r"\n\n(Human|Assistant):")
MULTI, EMPTY, APART = "multi-turn", "without a response", "of two instructions"
"""Why a pair is dropped."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of one turn, and the number of other pairs by the reason they are dropped."""

    loaded: Loaded
    dropped: Mapping[str, int]


def files_of(path: Path, split: str) -> tuple[Path, ...]:
    """Return the file at ``path``, or those of a folder named for the split, at any depth.

    ``harmless-base/train.jsonl.gz``, ``harmless-base-train.jsonl.gz`` and ``train.jsonl`` are
    files of the split "train".
    """
    if not path.is_dir():
        return (path,)
    found = (p for p in path.rglob("*") if p.name.endswith(JSON))
    return tuple(sorted(p for p in found if re.split(r"[-_.]", p.name.split(".")[0])[-1] == split))


def pairs_of(path: Path, split: str, root: Path | None = None) -> Pairs:
    """Read every pair; rows that are not pairs of dialogues give faults.

    The ``source`` of a pair is its file's path from ``root``: left out, the folder at ``path`` or
    that of the file.
    """
    files = files_of(path, split)
    if not files:
        looked = f"{split}.jsonl.gz or NAME-{split}.jsonl.gz"
        return Pairs(Loaded((), (Fault(shown(path), f"the folder holds no {looked}"),)), {})
    start = root or (path if path.is_dir() else path.parent)
    return _read(files, tuple(map(stamp, files)), start)


@lru_cache(maxsize=8)  # check, facts and build each ask for the same rows
def _read(files: tuple[Path, ...], stamps: tuple[tuple[int, int], ...], root: Path) -> Pairs:
    examples: list[Example] = []
    faults: list[Fault] = []
    dropped: Counter[str] = Counter()
    for file, row in ((each, row) for each in files for row in read_rows(each, root)):
        try:
            found = _pair(row, file.relative_to(root).as_posix())
        except BadRow as bad:
            faults.append(bad.fault)
            continue
        if isinstance(found, Example):
            examples.append(found)
        else:
            dropped[found] += 1
    if not examples and not faults:
        faults.append(Fault(shown(root), "holds no pair of one turn with two responses"))
    return Pairs(Loaded(tuple(examples), tuple(faults)), dropped)


def _pair(row: Row | Fault, source: str) -> Example | str:
    """Return the example, or why it is dropped."""
    if isinstance(row, Fault):
        raise BadRow(row)
    turns = [_turns(row, column) for column in ("chosen", "rejected")]
    if any(len(dialogue) != 2 for dialogue in turns):
        return MULTI
    (asked, chosen), (also_asked, rejected) = turns
    if not (asked and chosen and rejected):
        return EMPTY
    if asked != also_asked:
        return APART
    extra = {"chosen": chosen, "rejected": rejected, "source": source}
    return Example(row.name, asked, chosen, extra)


def _turns(row: Row, column: str) -> list[str]:
    """Return the turns in order, the human first; BadRow if this is not such a dialogue.

    A few of the published dialogues have two turns of one side in a row.
    """
    before, *rest = TURN.split(text_of(row, column, "path"))
    if before.strip() or rest[::2][:2] != ["Human", "Assistant"]:
        message = f"column {column!r} is no dialogue of '\\n\\nHuman: …\\n\\nAssistant: …'"
        raise BadRow(Fault(row.where, message))
    return [text.strip() for text in rest[1::2]]


def described(pairs: Pairs, taken: int) -> str:
    """Return the number of pairs taken, and of those dropped, with the reason."""
    counts: Iterable[str] = (f"{n:,} {why}" for why, n in sorted(pairs.dropped.items()))
    of = f"{taken:,} of {len(pairs.loaded.examples):,} of one turn"
    return "; dropped: ".join(filter(None, (of, ", ".join(counts))))
