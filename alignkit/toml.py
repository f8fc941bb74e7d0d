"""Read recipe files: TOML with ``extends`` and ``plugins``, overlays and ``-s`` overrides.

They are merged into one document in which every value knows the file and line it came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tomli

from alignkit.document import TOO_LONG, Document, Key, merge
from alignkit.errors import Origin, Problem, RecipeError, shown
from alignkit.shipped import exists, path_from, resolved


def read(path: Path, overlays: Iterable[Path] = (), overrides: Sequence[str] = ()) -> Document:
    """Return the recipe at ``path`` with its bases below and overlays, then overrides, on top.

    Raises RecipeError for a file that cannot be read or is not TOML, a cycle of ``extends``,
    and an override that is not ``key=value``.
    """
    document = _read_file(path.absolute(), ())
    for overlay in overlays:
        merge(document, _read_file(overlay.absolute(), ()))
    if overrides:
        from alignkit.overrides import typed

        merge(document, typed(overrides))
    document.path = path.absolute()
    return document


def _read_file(path: Path, within: tuple[Path, ...]) -> Document:
    path = resolved(path)
    if path in within:
        cycle = " -> ".join(shown(p) for p in (*within, path))
        raise RecipeError(
            [Problem(("extends",), f"recipes extend each other in a circle: {cycle}")]
        )
    own = _parse(path)
    own.take_plugins(path.parent)
    bases = own.table.pop("extends", [])
    document = Document(path=path)
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str) or not exists(path_from(base, path.parent), Path.is_file):
            raise _bad_base(base, own)
        merge(document, _read_file(path_from(base, path.parent), (*within, path)))
    merge(document, own)
    return document


def _bad_base(base: Any, own: Document) -> RecipeError:
    found = f"no such file: {base}" if isinstance(base, str) else f"not a file name: {base!r}"
    return RecipeError([Problem(("extends",), found, origin=own.origin(("extends",)))])


def _parse(path: Path) -> Document:
    try:
        text = path.read_text(encoding="utf-8-sig")
        table = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        line = getattr(error, "lineno", 1)
        source = "".join(text.splitlines()[line - 1 : line])
        raise RecipeError(
            [Problem((), f"not valid TOML: {error}", origin=Origin(path, line, source))]
        ) from None
    except RecursionError as error:
        raise RecipeError([Problem((), f"{shown(path)}: {error}")]) from None
    except UnicodeDecodeError as error:
        raise RecipeError([Problem((), f"{shown(path)} is not UTF-8 text: {error}")]) from None
    except ValueError as error:  # Python's own, of a number with thousands of digits
        reason = str(error) if "null byte" in str(error) else TOO_LONG
        raise RecipeError([Problem((), f"{shown(path)}: {reason}")]) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise RecipeError([Problem((), f"cannot read {shown(path)}: {reason}")]) from None
    rows = text.splitlines()
    origins = {k: Origin(path, n, rows[n - 1]) for k, n in key_lines(text).items()}
    return Document(table, origins, path)


# ---------------------------------------------------------------- lines

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:\\.|[^"\\])*"|'[^']*')"""
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"^\s*(\[\[?)\s*({_DOTTED})\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(rf"^\s*({_DOTTED})\s*=(.*)$")
_TOKEN = re.compile(
    r""""{3}(?:\\.|[^\\])*?"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\#[^\n]*""", re.DOTALL
)
"""A string, of several lines or of one, or a comment."""


def key_lines(text: str) -> dict[Key, int]:
    """Map each table header and key of a TOML document to its 1-based line.

    >>> key_lines('use = "grpo"\\n[loss]\\ncliprange = 0.2\\n')[("loss", "cliprange")]
    3
    """
    lines: dict[Key, int] = {}
    arrays: dict[Key, int] = {}
    table: Key = ()
    for number, line in enumerate(_without_strings(text).split("\n"), 1):
        if header := _HEADER.match(line):
            table = _locate(_split(header[2]), arrays, header[1] == "[[")
            for size in range(1, len(table) + 1):
                lines.setdefault(table[:size], number)
        elif key := _KEY.match(line):
            parts = _split(key[1])
            for size in range(1, len(parts) + 1):
                lines.setdefault((*table, *parts[:size]), number)
    return lines


def _locate(header: Key, arrays: dict[Key, int], new_item: bool) -> Key:
    """Insert the current index after each part of ``header`` that is an array of tables."""
    key: Key = ()
    for depth, part in enumerate(header, 1):
        key = (*key, part)
        if new_item and depth == len(header):
            arrays[key] = arrays.get(key, -1) + 1
        if key in arrays:
            key = (*key, str(arrays[key]))
    return key


def _without_strings(text: str) -> str:
    """Return a document with multi-line strings replaced by as many empty lines."""

    def emptied(token: re.Match[str]) -> str:
        several = token[0].startswith(('"""', "'''"))
        return "\n" * token[0].count("\n") if several else token[0]

    return _TOKEN.sub(emptied, text)


def _split(dotted: str) -> Key:
    return tuple(part.strip("\"'") for part in re.findall(_PART, dotted))
