"""The commands that plugins offer, for a list of them: their names and help, none built."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from alignkit.plugins import Registry


def stand_ins(registry: Registry) -> Iterator[click.Command]:
    """Yield a stand-in for each command that plugins offer: its name and help alone."""
    for (kind, name), offers in registry.offers.items():
        for plugin, component in offers if kind == "command" else ():
            prefix = f"{plugin.name}/" if len(offers) > 1 else ""
            typed = prefix + name.replace("_", "-")
            yield click.Command(typed, help=inspect.getdoc(component.params))
