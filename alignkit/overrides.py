"""Values given on the command line, as in ``-s loss.cliprange=0.1``, as one overlay of a recipe."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import tomli

from alignkit.document import TOO_LONG, Document, merge
from alignkit.errors import Origin, Problem, RecipeError


def typed(overrides: Iterable[str]) -> Document:
    """Return ``key=value`` items as one overlay, so that their order does not matter."""
    document = Document()
    for item in overrides:
        merge(document, _override(item))
    document.take_plugins(Path.cwd())
    return document


def _override(item: str) -> Document:
    dotted, equals, raw = item.partition("=")
    key = tuple(part.strip() for part in dotted.split("."))
    if not equals or not all(key):
        hint = "write key=value, for example loss.cliprange=0.1"
        raise RecipeError([Problem((), f"cannot read override {item!r}", hint)])
    try:
        parsed = tomli.loads(f"v = {raw}")
    except (tomli.TOMLDecodeError, RecursionError):
        parsed = {}
    except ValueError:
        raise RecipeError([Problem(key, TOO_LONG)]) from None
    value = parsed["v"] if parsed.keys() == {"v"} else raw.strip()  # a bare word is a string
    origin = Origin(None, 1, item)
    document = Document(origins={key[:n]: origin for n in range(1, len(key) + 1)})
    table = document.table
    for part in key[:-1]:
        table = table.setdefault(part, {})
    table[key[-1]] = value
    return document
