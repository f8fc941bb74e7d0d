"""Read Apache Parquet, and the Arrow streams that `datasets` saves, with pyarrow if installed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date, time
from decimal import Decimal
from importlib import import_module
from importlib.util import find_spec
from typing import IO, Any

from alignkit.data_files.records import Fault, Found

MAGIC = b"PAR1"
"""What every Parquet file begins with."""


STREAM = b"\xff\xff\xff\xff"
"""What an Arrow stream begins with, such as `save_to_disk` of `datasets` writes."""


_AT_ONCE = 1024
"""Rows of a Parquet file that are decoded together."""


def parquet_values(file: IO[bytes]) -> Iterator[Found]:
    """Yield each row as an object, or a Fault that tells what to install."""
    yield from _rows(file, "Parquet", "pyarrow.parquet", _by_row_group)


def _by_row_group(parquet: Any, file: IO[bytes]) -> Iterator[Any]:
    """Yield batches; asked for all row groups together, the reader keeps those that it has read."""
    whole = parquet.ParquetFile(file)
    for group in range(whole.num_row_groups):
        yield from whole.iter_batches(_AT_ONCE, row_groups=[group])


def arrow_values(file: IO[bytes]) -> Iterator[Found]:
    """Yield each row of an Arrow stream as an object, or a Fault that says what to install."""
    yield from _rows(file, "Arrow", "pyarrow.ipc", lambda m, f: m.open_stream(f))


def _rows(
    file: IO[bytes], name: str, module: str, batches: Callable[[Any, IO[bytes]], Iterable[Any]]
) -> Iterator[Found]:
    if find_spec("pyarrow") is None:
        needed = "needs the package pyarrow: pip install 'alignkit[parquet]'"
        article = "an" if name == "Arrow" else "a"
        yield Found(1, Fault("", f"{article} {name} file, which {needed}"))
        return
    reader: Any = import_module(module)  # untyped
    arrow: Any = import_module("pyarrow")
    number = 0
    try:
        for batch in batches(reader, file):
            for values in batch.to_pylist():
                number += 1
                yield Found(number, _plain(values), numbered=True)
    except (arrow.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        yield Found(number + 1, Fault("", f"the {name} file cannot be read: {reason}"))


def _plain(value: Any) -> Any:
    """Return the value as JSON would hold it: decimals and dates as text; bytes are unchanged."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value
