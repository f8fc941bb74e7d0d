"""A file of responses that grows as they come and survives a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alignkit.errors import AlignkitError, shown

Row = Mapping[str, Any]
Key = tuple[str, int]
"""Id of an example, and the number of its response."""


class Traces:
    """The rows of a JSON Lines file, by example and number of the response."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[Key, Row] = {}
        if path.exists():
            self._read(path.read_bytes())

    def _read(self, data: bytes) -> None:
        """Take the rows in; a last line that a kill left unfinished is cut off the file."""
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = json.loads(line)
                self._rows[row["id"], row["sample"]] = row
            except (ValueError, KeyError, TypeError) as error:
                message = f"{shown(self._path)}:{number}: no row of this algorithm: {error!r}"
                raise AlignkitError(message) from error
        if len(whole) < len(data):
            os.truncate(self._path, len(whole))

    def __contains__(self, key: Key) -> bool:
        return key in self._rows

    def __getitem__(self, key: Key) -> Row:
        return self._rows[key]

    def add(self, rows: Iterable[Row]) -> None:
        """Append rows, and have them on the disk before this returns."""
        new = list(rows)
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in new))
            file.flush()
            os.fsync(file.fileno())
        self._rows |= {(row["id"], row["sample"]): row for row in new}
