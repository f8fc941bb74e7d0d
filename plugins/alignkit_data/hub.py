"""Rows of data sets on the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alignkit import AlignkitError
from alignkit_data.rows import JSON, SUFFIXES, Fault, Row, files_in, read_rows

FILE = re.compile(r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?/(?P<file>.+)")
"""Address of one file in a data set's repository, as fsspec writes it."""


NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(?:/[\w.-]+)?", re.ASCII)
"""Name of a data set: an owner's, or one of the Hub's own without an owner."""


def missing(name: str) -> Iterator[str]:
    """Yield what has to be installed to read ``name`` from the Hub."""
    if not (find_spec("datasets") or find_spec("huggingface_hub")):
        yield f"reading {name!r} from the Hub needs: pip install datasets (or give a local path)"


def client_missing(name: str) -> Iterator[str]:
    """Yield what has to be installed to copy files of ``name`` from the Hub."""
    if not find_spec("huggingface_hub"):
        yield f"reading {name!r} from the Hub needs: pip install huggingface_hub (or a local path)"


def rows(name: str, config: str | None, split: str) -> Iterable[Row | Fault]:
    """Return the rows of a split, from the cache where HF_HUB_OFFLINE is set.

    Reads with ``datasets`` if it is installed, and otherwise the JSON files of the
    repository with ``huggingface_hub``. A name ``hf://datasets/OWNER/NAME/FILE`` is that file.
    """
    if found := FILE.fullmatch(name):
        return _of_file(name, found)
    if find_spec("datasets"):
        return _with_datasets(name, config, split)
    return _with_hub_client(name, config, split)


def copy_of(name: str) -> tuple[Path, Path]:
    """Return where a data set's JSON files, or its file that is named, now lie; and their folder.

    The second is the folder that the repository's own paths start from.
    """
    if found := FILE.fullmatch(name):
        path = _file(name, found)
        return path, path.parents[found["file"].count("/")]
    folder = _snapshot(name)
    return folder, folder


def _of_file(name: str, found: re.Match[str]) -> Iterator[Row | Fault]:
    yield from read_rows(_file(name, found))


def _file(name: str, found: re.Match[str]) -> Path:
    from huggingface_hub import hf_hub_download

    repo, file, revision = found["repo"], found["file"], found["revision"]
    try:
        path = hf_hub_download(  # nosec B615 # rows: nothing of it is executed
            repo, file, repo_type="dataset", revision=revision
        )
    except Exception as error:
        raise _unreachable(name, error) from error
    return Path(path)


def _with_datasets(name: str, config: str | None, split: str) -> Iterator[Row]:
    datasets: Any = import_module("datasets")  # untyped where it is not installed
    try:
        table: Iterable[dict[str, Any]] = datasets.load_dataset(  # nosec B615 # rows, not code
            name, config, split=split
        )
    except Exception as error:
        raise _unreachable(name, error) from error
    for number, values in enumerate(table):
        yield Row(f"{name} {split} row {number}", f"{split}/{number}", values)


def _snapshot(name: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [f"*{suffix}" for suffix in JSON]
    try:
        found = snapshot_download(  # nosec B615 # rows of JSON: nothing of it is executed
            name, repo_type="dataset", allow_patterns=patterns
        )
    except Exception as error:
        raise _unreachable(name, error) from error
    return Path(found)


def _with_hub_client(name: str, config: str | None, split: str) -> Iterator[Row | Fault]:
    folder = _snapshot(name)
    inner = folder / (config or "")
    files = files_in(inner if inner.is_dir() else folder, split, JSON)
    if not files:
        raise AlignkitError(
            f"{name}: no {split}.jsonl or {split}.json on the Hub, so this data set is stored in "
            "another format: pip install datasets, or give the path of a local JSON Lines file"
        )
    for file in files:
        yield from read_rows(file, folder)


def _unreachable(name: str, error: Exception) -> AlignkitError:
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    where = "HF_HUB_OFFLINE is set, so only the cache is read" if offline else "is it spelt right?"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return AlignkitError(
        f"cannot read the data set {name!r} from the Hub ({where}): {reason}. "
        'A local file works too: path = "…/train.jsonl"'
    )


def is_no_name(name: str) -> bool:
    """Return whether ``name`` can only be meant as a path.

    Hub names are ``owner/name``, or ``hf://datasets/owner/name/file``.
    """
    if name.startswith("hf://"):
        return FILE.fullmatch(name) is None or ".." in name.split("/")
    return name.endswith(SUFFIXES) or NAME.fullmatch(name) is None
