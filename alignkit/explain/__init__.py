"""Render plugins, components and plans as text for people."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from alignkit.component import Slot, field_docs, slots_of
from alignkit.kinds import KINDS
from alignkit.plugins import Offer, Plugin
from alignkit.recipe import Node, missing, nodes


def plan(node: Node, recipe: Path) -> str:
    """Return the resolved plan: every value with where it comes from, and what follows."""
    lines = [f"# {recipe}", *_node_lines(node)]
    lines += ["", "# what follows"]
    for part in node.walk():
        where = f"[{'.'.join(part.key)}] " if part.key else ""
        lines += [f"#   {where}{k}: {v}" for k, v in part.params.facts(part.tables()).items()]
    if lacking := missing(node):
        lines += ["", "# missing on this machine", *(f"#   {p}" for p in lacking)]
    return "\n".join(lines)


def _node_lines(node: Node) -> Iterable[str]:
    """Render a node as TOML whose comments say where each value stands."""
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


def component(kind: str, offer: Offer) -> str:
    """Return a component's help: what it is, its fields with defaults, its tables, its source."""
    plugin, found = offer
    schema = found.params
    lines = [
        f"{kind} {found.name}  ({plugin.name} plugin, {plugin.dist} {plugin.version})",
        "",
        inspect.getdoc(schema) or "",
    ]
    if schema.model_fields:
        lines += ["", "Fields"]
        docs = field_docs(schema)
        for name, info in schema.model_fields.items():
            lines += _field_lines(name, info, docs[name])
    if slots := slots_of(schema, KINDS):
        lines += ["", "Tables", *(f"  {_slot_line(s)}" for s in slots.values())]
    if schema.needs:
        lines += ["", f"Reads {', '.join(sorted(schema.needs))}."]
    return "\n".join([*lines, "", f"Source: {inspect.getsourcefile(schema)}"])


def _field_lines(name: str, info: FieldInfo, doc: str) -> list[str]:
    default = "required" if info.is_required() else f"= {_default(info)}"
    limits = ", ".join(str(m) for m in info.metadata if type(m).__module__ == "annotated_types")
    head = f"  {name}: {_type(info.annotation)} {default}{f'   [{limits}]' if limits else ''}"
    return [head, *(f"      {line}" for line in doc.splitlines())]


def _type(annotation: Any) -> str:
    """Return a field's type as it is written in code, without what ``Annotated`` adds."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(args[0])
    if origin is Literal:
        return " | ".join(json.dumps(a) for a in args)
    if origin in (Union, UnionType):
        return " | ".join(_type(a) for a in args)
    if annotation in (type(None), Ellipsis):
        return "None" if annotation is not Ellipsis else "..."
    name = getattr(annotation, "__name__", str(annotation))
    return f"{name}[{', '.join(_type(a) for a in args)}]" if args else str(name)


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=False)
    return "computed" if value is PydanticUndefined else json.dumps(value, default=str)


def _slot_line(slot: Slot) -> str:
    brackets = {
        "one": f"[{slot.name}]",
        "list": f"[[{slot.name}]]",
        "map": f"[{slot.name}.NAME]",
    }
    what = f"use = a {slot.kind}" if slot.kind else "a table of fixed shape"
    return f"{brackets[slot.arity]}  {what}{'' if slot.required else ' (optional)'}"


def plugin_table(plugins: Iterable[Plugin]) -> str:
    """Return one line per plugin: name, distribution, state, and what it offers or why not."""
    rows = [("PLUGIN", "FROM", "STATE", "PROVIDES")]
    for plugin in plugins:
        offers = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in plugin.provides.items())
        text = f"{offers}  ({plugin.detail})" if offers and plugin.detail else plugin.detail
        rows.append((plugin.name, f"{plugin.dist} {plugin.version}", plugin.status, text or offers))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    )
