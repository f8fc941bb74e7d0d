"""Apache Parquet, and the Arrow streams that `datasets` saves, by pyarrow where it is installed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from datetime import date, time
from decimal import Decimal
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from alignkit.data_files.records import Fault, Found

MAGIC = b"PAR1"
"""What every Parquet file begins with."""


STREAM = b"\xff\xff\xff\xff"
"""What an Arrow stream begins with, such as `save_to_disk` of `datasets` writes."""


def parquet_values(data: bytes) -> Iterator[Found]:
    """Yield each row as an object, or a Fault that says what to install."""
    yield from _rows(
        data, "Parquet", "pyarrow.parquet", lambda m, f: m.ParquetFile(f).iter_batches()
    )


def arrow_values(data: bytes) -> Iterator[Found]:
    """Yield each row of an Arrow stream as an object, or a Fault that says what to install."""
    yield from _rows(data, "Arrow", "pyarrow.ipc", lambda m, f: m.open_stream(f))


def _rows(
    data: bytes, name: str, module: str, batches: Callable[[Any, io.BytesIO], Iterable[Any]]
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
        for batch in batches(reader, io.BytesIO(data)):
            for values in batch.to_pylist():
                number += 1
                yield Found(number, _plain(values), numbered=True)
    except (arrow.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        yield Found(number + 1, Fault("", f"the {name} file cannot be read: {reason}"))


def _plain(value: Any) -> Any:
    """Return what JSON would hold: decimals and dates as text; bytes stay what they are."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value
