"""The names and help of the commands that plugins offer, for listing them without building any."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from alignkit.plugins import Registry


def stand_ins(registry: Registry) -> Iterator[click.Command]:
    """Yield a placeholder for each command that plugins offer, with only its name and help."""
    for (kind, name), offers in registry.offers.items():
        for plugin, component in offers if kind == "command" else ():
            prefix = f"{plugin.name}/" if len(offers) > 1 else ""
            typed = prefix + name.replace("_", "-")
            yield click.Command(typed, help=inspect.getdoc(component.params))
