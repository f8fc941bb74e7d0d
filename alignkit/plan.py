"""A recipe before it runs: resolved, with each value's source, derived facts and its disk needs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from alignkit.errors import AlignkitError
from alignkit.recipe import Node, missing, nodes

if TYPE_CHECKING:
    from alignkit.footprint import ModelSizes


@runtime_checkable
class Fits(Protocol):
    """Parameters of an algorithm that tell whether its run's output fits on a disk."""

    def room(self, tables: Mapping[str, Any], sizes: ModelSizes, folder: Path, /) -> str:
        """Return why it certainly does not fit on the disk of ``folder``, "" if it may.

        See :func:`alignkit.footprint.no_room`. Must not import the ML stack.
        """
        ...


def text(node: Node, recipe: Path) -> str:
    """Return the resolved plan: every value with where it comes from, and what follows."""
    lines = [f"# {recipe}", *_node_lines(node)]
    lines += ["", "# what follows"]
    for part in node.walk():
        where = f"[{'.'.join(part.key)}] " if part.key else ""
        lines += [f"#   {where}{k}: {v}" for k, v in part.params.facts(part.tables()).items()]
    if node.left_out:
        lines += ["", "# left out of the files", *(f"#   {note}" for note in node.left_out)]
    if node.renamed:
        lines += ["", "# under names of an earlier version, see `alignkit migrate`"]
        lines += [f"#   {line}" for note in node.renamed for line in str(note).splitlines()]
    if lacking := missing(node):
        lines += ["", "# missing on this machine", *(f"#   {p}" for p in lacking)]
    return "\n".join(lines)


def refuse_without_room(node: Node, out: Path | None) -> None:
    """Raise AlignkitError if what the run will certainly write does not fit on the disk.

    ``out`` is its directory; None = one below ``runs/``.
    """
    folder = out or Path("runs")
    parts = sorted(node.walk(), key=lambda part: part.key != ("policy",))  # before a teacher
    told = [part.params.sizes(part.tables()) for part in parts if part.kind == "policy"]
    if not any(told) or not isinstance(node.params, Fits):
        return
    if said := node.params.room(node.tables(), next(filter(None, told)), folder):
        raise AlignkitError(said)


def _node_lines(node: Node) -> Iterable[str]:
    """Render a node as TOML with comments on where each value is set."""
    rows: list[tuple[str, str]] = []
    if node.key:
        rows.append((f"[{'.'.join(node.key)}]", ""))
    if node.kind:
        owner = f"{node.plugin.name} plugin, {node.plugin.dist} {node.plugin.version}"
        rows.append((f"use = {json.dumps(node.use)}", f"{_from(node, 'use')} ({owner})"))
    for key, value in node.params.model_dump(mode="json").items():
        shown = json.dumps(value) if value is not None else "(none)"
        rows.append((f"{key} = {shown}", _from(node, key)))
    width = min(48, max((len(left) for left, _ in rows), default=0))
    yield from (f"{left:<{width}}  # {right}" if right else left for left, right in rows)
    for child in node.children.values():
        for below in nodes(child):
            yield ""
            yield from _node_lines(below)


def _from(node: Node, key: str) -> str:
    return str(node.origins[key]) if key in node.origins else "default"
