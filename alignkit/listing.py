"""The table of ``alignkit list-plugins``.

It is aligned by hand: importing rich takes about as long as importing all built-in plugins, and
listing them stays quick.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace

from alignkit.plugin import Plugin
from alignkit.plugins import Registry


def as_text(registry: Registry, *, as_json: bool) -> str:
    """Return the plugins as a table, or as JSON with their tracebacks."""
    plugins = [_with_rivals(plugin, registry) for plugin in registry.plugins]
    if as_json:
        return json.dumps([asdict(p) for p in plugins], indent=2, default=str)
    return plugin_table(plugins)


def _with_rivals(plugin: Plugin, registry: Registry) -> Plugin:
    """Return the plugin with a note on each of its component names that others offer too."""
    notes = [plugin.detail] if plugin.detail else []
    for (kind, name), offers in registry.offers.items():
        owners = [owner for owner, _ in offers]
        rivals = ", ".join(f"{owner.name}/{name}" for owner in owners if owner is not plugin)
        if rivals and any(owner is plugin for owner in owners):
            notes.append(f"{kind} {name} is also offered as {rivals}")
    return replace(plugin, detail="; ".join(notes))


def plugin_table(plugins: Iterable[Plugin]) -> str:
    """Return one line per plugin: name, distribution, state, and what it offers or why nothing."""
    rows = [("PLUGIN", "FROM", "STATE", "PROVIDES")]
    for plugin in plugins:
        offers = "; ".join(
            f"{kind}: {', '.join(typed(kind, n) for n in names)}"
            for kind, names in plugin.provides.items()
        )
        text = f"{offers}  ({plugin.detail})" if offers and plugin.detail else plugin.detail
        rows.append((plugin.name, f"{plugin.dist} {plugin.version}", plugin.status, text or offers))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    )


def typed(kind: str, name: str) -> str:
    """Return a component's name as it is typed: a command's on the command line, with hyphens."""
    return name.replace("_", "-") if kind == "command" else name
