"""JSON Schema of recipes, for completion and checking in editors."""

from __future__ import annotations

from typing import Any

from alignkit.component import Params, Slot, field_docs, slots_of
from alignkit.kinds import KINDS
from alignkit.plugins import Registry

Json = dict[str, Any]
EXTENDS: Json = {"type": ["string", "array"], "items": {"type": "string"}}


def recipe_schema(registry: Registry) -> Json:
    """Return a draft 2020-12 schema of every recipe the installed plugins allow.

    Overlays fill in what a recipe leaves out, so nothing but ``use`` is required in a file.
    """
    definitions: Json = {}
    for kind in KINDS.values():
        definitions[kind] = _choice(kind, registry, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "alignkit recipe",
        "$defs": definitions,
        "$ref": "#/$defs/algorithm",
    }


def _choice(kind: str, registry: Registry, definitions: Json) -> Json:
    branches = []
    for (offered, name), offers in sorted(registry.offers.items()):
        if offered != kind:
            continue
        for plugin, component in offers:
            names = [f"{plugin.name}/{name}"] + ([name] if len(offers) == 1 else [])
            key = f"{kind}.{plugin.name}.{name}"
            definitions[key] = _table(component.params, names, definitions)
            if kind == "algorithm":
                definitions[key]["properties"]["extends"] = EXTENDS
            branches.append({"$ref": f"#/$defs/{key}"})
    return {"oneOf": branches} if branches else {"not": {}}


def _table(params: type[Params[Any]], names: list[str], definitions: Json) -> Json:
    schema = params.model_json_schema()
    definitions |= schema.pop("$defs", {})
    schema.pop("required", None)
    properties = schema.setdefault("properties", {})
    for name, doc in field_docs(params).items():
        properties[name].pop("description", None)  # last, wherever it was written
        properties[name] |= {"description": doc} if doc else {}
    for slot in slots_of(params, KINDS).values():
        properties[slot.name] = _slot(slot, definitions)
    if names:
        properties["use"] = {"enum": names}
        schema["required"] = ["use"]
    return schema


def _slot(slot: Slot, definitions: Json) -> Json:
    item = _table(slot.table, [], definitions) if slot.table else {"$ref": f"#/$defs/{slot.kind}"}
    if slot.arity == "list":
        return {"type": "array", "items": item}
    if slot.arity == "map":
        return {"type": "object", "additionalProperties": item}
    return item
