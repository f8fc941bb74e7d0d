"""Files of a model folder that are not what their names say: cut off, or pointers of git LFS.

They are recognised by their first bytes and sizes, so that nothing large is read.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

_POINTER = b"version https://git-lfs"
_SUFFIXES = (".safetensors", ".bin", ".json", ".model", ".txt")


def pointers(folder: Path) -> list[str]:
    """Return the names of files of which there is only git LFS's pointer."""
    return [path.name for path in _files(folder) if _begins(path, len(_POINTER)) == _POINTER]


def cut_off(folder: Path) -> Iterator[str]:
    """Yield each file of weights that cannot be whole, with what is wrong with it."""
    for path in _files(folder):
        if path.suffix == ".safetensors":
            problem = _safetensors(path)
        elif path.suffix == ".bin" and _begins(path, 2) == b"PK":
            problem = None if zipfile.is_zipfile(path) else "it ends early"
        else:
            continue
        if problem:
            yield f"{path.name}: {problem}"


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES and p.is_file())


def _begins(path: Path, count: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(count)


def _safetensors(path: Path) -> str | None:
    """Return what is wrong with the file, by the places that its header gives to the tensors.

    Eight bytes hold the header's length, little-endian; the header is JSON, and each tensor's
    ``data_offsets`` count from its end.
    """
    size = path.stat().st_size
    length = struct.unpack("<Q", _begins(path, 8))[0] if size >= 8 else size
    if 8 + length > size:
        return f"it ends in its header, after {size:,} bytes"
    try:
        header = json.loads(_begins(path, 8 + length)[8:])
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name[:2] != "__"]
        whole = 8 + length + max(ends, default=0)
    except (ValueError, LookupError, TypeError, AttributeError):
        return "its header cannot be read"
    return f"it has {size:,} bytes of {whole:,}" if size < whole else None
