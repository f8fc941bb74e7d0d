"""Which rows of a run are in its W&B files; rows that a killed process had not written are not."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

BLOCK, HEADER, PREAMBLE = 32 * 1024, 7, 7
"""Bytes of a block, of a piece's header (checksum 4, length 2, type 1), and before the first."""
PATIENCE = 30.0
"""Seconds to wait at most for the process that writes a file."""
WHOLE, FIRST, LAST = 1, 2, 4
"""Types of a piece: a whole record, or the first or last piece of one."""


def steps_on_disk(folder: Path) -> set[int]:
    """Return the steps whose row is in a ``.wandb`` file below the run directory ``folder``.

    wandb's own process may outlive a run that was killed, and writes what it has; it is waited for.
    """
    files = sorted(folder.glob("wandb/*run-*/*.wandb"))
    deadline = time.monotonic() + PATIENCE
    while _held(files) and time.monotonic() < deadline:
        time.sleep(0.1)
    return {n for file in files for record in records(file.read_bytes()) for n in _row(record)}


def _held(files: Sequence[Path]) -> bool:
    """Whether a process has one of the files open, as far as Linux lets this one see."""
    open_now = set()
    for link in Path("/proc").glob("[0-9]*/fd/*") if files else ():
        with suppress(OSError):
            open_now.add(os.readlink(link))
    return any(str(file.resolve()) in open_now for file in files)


def records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a file in the log format of LevelDB, up to where it breaks off.

    https://github.com/google/leveldb/blob/main/doc/log_format.md; seven bytes stand before it.
    """
    at, kept = PREAMBLE, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:  # too little for a header: filled up
            at += BLOCK - at % BLOCK
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        piece = data[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if len(piece) < size or not kind:
            return
        kept = piece if kind in (WHOLE, FIRST) else kept + piece
        if kind in (WHOLE, LAST):
            yield kept


def _row(data: bytes) -> Iterator[int]:
    """Yield the step of a record that is a row of metrics, as the tracker logs one."""
    proto: Any = import_module("wandb.proto.wandb_internal_pb2")
    record = proto.Record()
    try:
        record.ParseFromString(data)
    except ValueError:  # protobuf's DecodeError: the process ended amid it
        return
    items = {i.key or "/".join(i.nested_key): i.value_json for i in record.history.item}
    if "time" in items and "train_step" in items:
        yield json.loads(items["train_step"])
