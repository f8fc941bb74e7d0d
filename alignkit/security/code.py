"""List the code of others that a recipe runs, to be printed before any of it runs."""

from __future__ import annotations

from pathlib import Path

from alignkit.errors import shown
from alignkit.lifecycle.files import file_sum
from alignkit.recipe import Node

BUILT_IN = "alignkit"


def foreign_code(node: Node) -> list[str]:
    """Return a phrase for each plugin of another distribution and each file the recipe names.

    Built-in components run only alignkit's code, except for files that
    :meth:`~alignkit.Params.code` lists. Files are given with the start of their SHA-256.
    """
    found: dict[str, None] = {}
    for part in node.walk():
        if part.kind and part.plugin.dist != BUILT_IN:
            found[f"plugin {part.plugin.name} ({part.plugin.dist} {part.plugin.version})"] = None
        for source in part.params.code():
            found[_with_hash(source, ".".join(part.key))] = None
    return list(found)


def announcement(node: Node) -> str:
    """Return the line to print before a recipe is built, "" if it runs only alignkit's code."""
    found = foreign_code(node)
    return f"this recipe runs code of: {'; '.join(found)}" if found else ""


def _with_hash(source: Path | str, key: str) -> str:
    where = f"[{key}] " if key else ""
    if isinstance(source, str):
        return f"{where}{source}"
    try:
        note = f"sha256 {file_sum(source)[:16]}"
    except OSError as error:
        note = f"cannot be read: {error.strerror}"
    return f"{where}{shown(source)} ({note})"
