"""Explain a recipe before it runs: what each part does, with which values, and what follows."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from pathlib import Path

from alignkit.docs import field_docs
from alignkit.plugins import Registry
from alignkit.recipe import Node, missing
from alignkit_explain import estimate
from alignkit_explain.told import Asked, on_ranks

FORMULAS = ("advantage", "loss_type", "preference_loss", "normalizer")
"""Kinds that are one formula each, written in a function with the component's name."""
INDENT = "    "


def explained(
    node: Node, registry: Registry, like: Path | None = None, asked: Asked | None = None
) -> str:
    """Return the recipe in plain text: components, formulas, given values with file:line.

    ``like`` is the directory of a run that shows how fast this machine is; ``asked`` are the ranks
    that memory and time are estimated for.
    """
    parts = ["\n".join(_part(part)) for part in node.walk()]
    if asked is None or not asked.several:
        told = estimate.text(node, like, registry, asked.card if asked else None)
        parts.append("\n".join(["Estimate", *_indented(*told)]))
    else:
        told = on_ranks(node, asked, like, registry)
        parts.append("\n".join([f"Estimate for {asked.name}", *_indented(*told)]))
    if node.left_out:
        parts.append("\n".join(["Left out of the files", *_indented(*node.left_out)]))
    if lacking := missing(node):
        parts.append("\n".join(["Missing on this machine", *_indented(*map(str, lacking))]))
    return "\n\n".join(parts)


def _part(node: Node) -> Iterator[str]:
    """Yield the lines about one table: what it is, its values, the sizes that follow."""
    title = f"[{'.'.join(node.key)}] " if node.key else ""
    owner = f"{node.kind}, {node.plugin.name} plugin, {node.plugin.dist} {node.plugin.version}"
    stands = f"; {node.origins['use']}" if "use" in node.origins else ""
    yield f"{title}{node.use}  ({owner}{stands})" if node.kind else title.rstrip()
    yield from _indented(inspect.getdoc(type(node.params)) or "")
    if equation := formula(node):
        yield from _indented("", "Formula", *(INDENT + line for line in equation.splitlines()))
    yield from _indented(*_values(node))
    facts = node.params.facts(node.tables())
    if facts:
        yield from _indented("", "What follows", *(f"{INDENT}{k}: {v}" for k, v in facts.items()))


def _values(node: Node) -> Iterator[str]:
    """Yield each given value with its place and meaning, then the defaults on one line."""
    values = node.params.model_dump(mode="json")
    docs = field_docs(type(node.params))
    for name in [k for k in values if k in node.origins]:
        yield ""
        yield f"{name} = {json.dumps(values[name])}  ({node.origins[name]})"
        yield from (INDENT + line for line in docs[name].splitlines())
    rest = [
        f"{k} unset" if v is None else f"{k} = {json.dumps(v)}"
        for k, v in values.items()
        if k not in node.origins
    ]
    if rest:
        yield ""
        yield f"Defaults: {', '.join(rest)}"


def formula(node: Node) -> str:
    """Return the docstring of the function that computes a component, or "" if none is found.

    It is looked for by the component's name, in the file of its table and, if the plugin is a
    package, in the modules beside it. They are parsed, not imported: importing them takes torch.
    """
    source = inspect.getsourcefile(type(node.params))
    if node.kind not in FORMULAS or source is None:
        return ""
    file = Path(source)
    package = (file.parent / "__init__.py").is_file()
    for path in sorted(file.parent.glob("*.py")) if package else [file]:
        for found in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(found, ast.FunctionDef) and found.name == node.use:
                return ast.get_docstring(found) or ""
    return ""


def _indented(*texts: str) -> list[str]:
    return [f"{INDENT}{line}".rstrip() for text in texts for line in text.splitlines() or [""]]
