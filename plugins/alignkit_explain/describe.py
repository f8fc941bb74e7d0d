"""A component as text for people: what it is, its fields and tables, its source."""

from __future__ import annotations

import inspect
import json
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from alignkit.component import Slot, field_docs, slots_of
from alignkit.kinds import KINDS
from alignkit.plugins import Offer


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
