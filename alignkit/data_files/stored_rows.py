"""Rows kept in a temporary file instead of memory, each found again by its number."""

from __future__ import annotations

import marshal
import os
import weakref
from array import array
from tempfile import TemporaryFile

from alignkit.data_files.line_index import NotIndexed
from alignkit.data_files.records import Row


class StoredRows:
    """Where each row begins in a file without a name, which ends with the process.

    It takes 8 bytes of memory a row, and on the disk about what the row takes as JSON. The file is
    in the folder for temporary files, which ``TMPDIR`` names.
    """

    def __init__(self) -> None:
        self._file = TemporaryFile()  # noqa: SIM115  closed with this object
        weakref.finalize(self, self._file.close)
        self._starts = array("Q", [0])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def add(self, row: Row) -> None:
        """Append a row; NotIndexed if it holds more than JSON can and bytes."""
        try:
            data = marshal.dumps((row.where, row.name, dict(row.values), row.line))
        except ValueError as error:
            raise NotIndexed from error
        self._file.write(data)
        self._starts.append(self._starts[-1] + len(data))

    def finish(self) -> None:
        """Write what is still held back; rows can be read from then on."""
        self._file.flush()

    def read(self, index: int) -> Row:
        """Return a row; it does not matter what became of the file that it came from."""
        begin, end = self._starts[index], self._starts[index + 1]
        data = os.pread(self._file.fileno(), end - begin, begin)
        return Row(*marshal.loads(data))  # nosec B302 # written by this object, in a nameless file
