"""Apache Parquet, by pyarrow where that is installed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import date, time
from decimal import Decimal
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from alignkit.data_files.records import Fault, Found

MAGIC = b"PAR1"
"""What every Parquet file begins with."""


def parquet_values(data: bytes) -> Iterator[Found]:
    """Yield each row as an object, or a Fault that says what to install."""
    if find_spec("pyarrow") is None:
        needed = "needs the package pyarrow: pip install 'alignkit[parquet]'"
        yield Found(1, Fault("", f"a Parquet file, which {needed}"))
        return
    parquet: Any = import_module("pyarrow.parquet")  # untyped
    arrow: Any = import_module("pyarrow")
    number = 0
    try:
        for batch in parquet.ParquetFile(io.BytesIO(data)).iter_batches():
            for values in batch.to_pylist():
                number += 1
                yield Found(number, _plain(values), numbered=True)
    except (arrow.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        yield Found(number + 1, Fault("", f"the Parquet file cannot be read: {reason}"))


def _plain(value: Any) -> Any:
    """Return what JSON would hold: decimals and dates as text; bytes stay what they are."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value
