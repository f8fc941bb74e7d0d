"""A component as text for people: what it is, its fields and tables, its source."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from alignkit.component import Params, Slot, slots_of
from alignkit.docs import field_docs
from alignkit.errors import AlignkitError, did_you_mean
from alignkit.kinds import KINDS
from alignkit.plugin import Offer
from alignkit.plugins import Registry
from alignkit.renaming import goes, present_name

Schema = type[Params[Any]]


def component(kind: str, offer: Offer) -> str:
    """Return a component's help: what it is, its fields with defaults, its tables, its source."""
    plugin, found = offer
    schema = found.params
    lines = [
        f"{kind} {found.name}  ({plugin.name} plugin, {plugin.dist} {plugin.version})",
        *_table_lines(schema),
    ]
    for name, slot, shape in fixed_tables(schema):
        lines += ["", _header(name, slot), *_short_lines(shape)]
    if earlier := list(_earlier_names(schema, plugin.dist)):
        lines += ["", "Earlier names", *(f"  {line}" for line in earlier)]
    if schema.needs:
        lines += ["", f"Reads {', '.join(sorted(schema.needs))}."]
    if cited := citation(schema):
        lines += ["", "Cite", *(f"  {line}" for line in cited.splitlines())]
    return "\n".join([*lines, "", f"Source: {inspect.getsourcefile(schema)}"])


def _earlier_names(schema: Schema, dist: str) -> Iterator[str]:
    """Yield the names that keys of a component and its fixed tables had, and until when they work.

    ``dist`` is the package whose releases count.
    """
    fixed = [(f"{path}.", shape) for path, _, shape in fixed_tables(schema)]
    for place, shape in (("", schema), *fixed):
        for old in shape.renamed:
            now, until = present_name(shape.renamed, old), goes(shape.renamed, old, dist)
            yield f"{place}{old}: called {now} now; the old name {until}"


def citation(schema: Schema) -> str:
    """Return how a component's plugin is to be cited: ``__citation__`` of its module or package."""
    module = schema.__module__
    for name in dict.fromkeys((module, module.partition(".")[0])):
        if cited := getattr(sys.modules.get(name), "__citation__", ""):
            return inspect.cleandoc(str(cited)).strip()
    return ""


def table(name: str, registry: Registry) -> str:
    """Return the help of the tables that stand in recipes as ``[name]``: fields, defaults, source.

    ``name`` may be the last part alone: ``sets`` for ``[eval.sets.NAME]``. AlignkitError if no
    component has such a table.
    """
    holders: dict[tuple[str, Schema], list[str]] = {}
    known: dict[str, str] = {}
    for (kind, owner), offers in sorted(registry.offers.items()):
        for _, offer in offers:
            for slot in slots_of(offer.params, KINDS).values():
                known.setdefault(slot.name, slot.kind)
            for path, slot, shape in fixed_tables(offer.params):
                known |= dict.fromkeys((path, path.rpartition(".")[2]), "")
                if name in (path, path.rpartition(".")[2], f"{path}.NAME"):
                    key = (_header(path, slot), shape)
                    holders.setdefault(key, []).append(f"{kind} {owner}")
    if holders:
        return "\n\n".join(_described(*key, owners) for key, owners in holders.items())
    if chosen := known.get(name):
        return (
            f"[{name}] chooses {_article(chosen)} with `use`: {', '.join(registry.names(chosen))}; "
            f"alignkit describe {chosen} NAME tells its keys"
        )
    listed = ", ".join(sorted(known))
    raise AlignkitError(f"no table {name!r}.{did_you_mean(name, known)} Known: {listed}.")


def _described(header: str, schema: Schema, owners: list[str]) -> str:
    lines = [f"{header}  (of {', '.join(owners)})", *_table_lines(schema)]
    return "\n".join([*lines, "", f"Source: {inspect.getsourcefile(schema)}"])


def fixed_tables(schema: Schema, within: str = "") -> Iterator[tuple[str, Slot, Schema]]:
    """Yield the tables of fixed shape below a component: dotted name in its table, slot, shape."""
    for slot in slots_of(schema, KINDS).values():
        if slot.table:
            name = f"{within}{slot.name}"
            yield name, slot, slot.table
            inner = f"{name}.NAME." if slot.arity == "map" else f"{name}."
            yield from fixed_tables(slot.table, inner)


def _table_lines(schema: Schema) -> Iterator[str]:
    """Yield what a schema is, its fields in full, and the tables in it."""
    yield from ("", inspect.getdoc(schema) or "")
    if schema.model_fields:
        yield from ("", "Fields")
        docs = field_docs(schema)
        for name, info in schema.model_fields.items():
            yield from _field_lines(name, info, docs[name])
    if slots := slots_of(schema, KINDS):
        yield from ("", "Tables", *(f"  {_slot_line(s)}" for s in slots.values()))


def _short_lines(schema: Schema) -> Iterator[str]:
    """Yield a line for each field of a table: type, default, the first sentence about it."""
    docs = field_docs(schema)
    for name, info in schema.model_fields.items():
        head, *_ = _field_lines(name, info, "")
        doc = " ".join(docs[name].split())
        yield f"{head}  # {re.split(r'(?<=[.]) ', doc)[0]}"
    yield from (f"  {_slot_line(slot)}" for slot in slots_of(schema, KINDS).values())


def _field_lines(name: str, info: FieldInfo, doc: str) -> list[str]:
    default = "required" if info.is_required() else f"= {_default(info)}"
    limits = ", ".join(_limit(m) for m in info.metadata if type(m).__module__ == "annotated_types")
    head = f"  {name}: {_type(info.annotation)} {default}{f'   [{limits}]' if limits else ''}"
    return [head, *(f"      {line}" for line in doc.splitlines())]


SIGNS = {"Gt": ">", "Ge": ">=", "Lt": "<", "Le": "<="}


def _limit(bound: Any) -> str:
    """Return a limit of a field as it is written in a formula, such as ``"> 0"``."""
    name = type(bound).__name__
    return f"{SIGNS[name]} {getattr(bound, name.lower())}" if name in SIGNS else str(bound)


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


def _header(name: str, slot: Slot) -> str:
    shape = {"one": f"[{name}]", "list": f"[[{name}]]", "map": f"[{name}.NAME]"}
    return shape[slot.arity]


def _slot_line(slot: Slot) -> str:
    what = f"use = {_article(slot.kind)}" if slot.kind else "a table of fixed shape"
    unless = f" (or [{slot.unless}])" if slot.unless else ""
    return f"{_header(slot.name, slot)}  {what}{unless if slot.required else ' (optional)'}"


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
