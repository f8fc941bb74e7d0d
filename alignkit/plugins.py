"""Find, vet, load, disable and list plugins; look components up by kind and name.

pluggy's own entry-point loader silently drops the second of two same-named plugins and lets one
broken import stop all the others, so this module has its own loop.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

from alignkit.component import Component
from alignkit.errors import AlignkitError, did_you_mean
from alignkit.vetting import GROUP, OURS, components_of

COMMANDS = ("run", "resume", "list_plugins")
"""The kernel's own commands, as components spell them; plugins cannot offer these."""
Status = Literal["active", "disabled", "broken", "incompatible", "conflict"]


@dataclass
class Plugin:
    """One entry point of the ``alignkit`` group, loaded or not."""

    name: str
    dist: str
    version: str
    module: str
    status: Status = "active"
    detail: str = ""
    """Why the plugin is not active, or another remark about it."""
    traceback: str = ""
    provides: dict[str, list[str]] = field(default_factory=dict)
    """Component names by kind."""
    file: Path | None = None
    """The plugin's file, if it is a file and not an installed package."""


Offer = tuple[Plugin, Component[Any]]
Offers = dict[tuple[str, str], list[Offer]]


@dataclass
class Registry:
    """Every component of every active plugin."""

    plugins: list[Plugin]
    offers: Mapping[tuple[str, str], list[Offer]]
    """By (kind, bare component name); more than one offer is an ambiguity, not an error."""

    @property
    def disabled(self) -> list[str]:
        """Names of the plugins that were left out."""
        return [p.name for p in self.plugins if p.status == "disabled"]

    def names(self, kind: str) -> list[str]:
        """Return the bare names offered for ``kind``, sorted."""
        return sorted(name for k, name in self.offers if k == kind)

    def get(self, kind: str, name: str) -> Offer:
        """Look up ``"name"`` or, when two plugins share it, ``"plugin/name"``.

        Raises LookupError, with the remedy, when nothing or more than one thing fits.
        """
        plugin, _, bare = name.rpartition("/")
        found = [o for o in self.offers.get((kind, bare), []) if plugin in ("", o[0].name)]
        if len(found) == 1:
            return found[0]
        from alignkit.unused import missing

        raise LookupError(missing(self, kind, name, found))


def load(disable: Iterable[str] = ()) -> Registry:
    """Load every ``alignkit`` entry point and collect what the plugins offer.

    ``disable`` and the environment variable ALIGNKIT_DISABLE_PLUGINS (comma-separated) name
    plugins that are listed but not imported. Raises AlignkitError for an unknown name.
    """
    blocked = {n.strip() for n in (*disable, *_disabled_by_environment())} - {""}
    found = _entry_points()
    for name in sorted(blocked - found.keys()):
        raise AlignkitError(f"cannot disable unknown plugin {name!r}.{did_you_mean(name, found)}")
    vetted = []
    for _, candidates in sorted(found.items()):
        for entry in candidates:
            plugin = _describe(entry)
            _vet(plugin, entry, candidates, blocked)
            vetted.append((plugin, entry))
    offers: Offers = defaultdict(list)
    for plugin, entry in sorted(vetted, key=lambda pair: pair[0].dist != OURS):  # ours come first
        if plugin.status == "active":
            _activate(plugin, entry, offers)
    return Registry([plugin for plugin, _ in vetted], dict(offers))


def _disabled_by_environment() -> list[str]:
    return os.environ.get("ALIGNKIT_DISABLE_PLUGINS", "").split(",")


def _entry_points() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = defaultdict(list)
    for entry in entry_points(group=GROUP):
        found[entry.name].append(entry)
    return found


def _describe(entry: EntryPoint) -> Plugin:
    name, version = _named(entry.dist)
    return Plugin(entry.name, name, version, entry.value)


@lru_cache(maxsize=64)
def _named(dist: Distribution | None) -> tuple[str, str]:
    """Return a distribution's name and version; its metadata, a README among them, is read once."""
    if dist is None:
        return "unknown", "?"
    metadata = dist.metadata
    told = "Version" in metadata
    return str(metadata["Name"]), str(metadata["Version"] if told else dist.version)


def _vet(
    plugin: Plugin, entry: EntryPoint, candidates: list[EntryPoint], blocked: set[str]
) -> None:
    """Settle everything that can be known without importing the plugin."""
    others = [_describe(e) for e in candidates if e is not entry]
    if plugin.name in blocked:
        plugin.status = "disabled"
    elif others and plugin.dist != OURS:  # built-in names are reserved
        from alignkit.unused import claimed

        plugin.status, plugin.detail = "conflict", claimed(plugin, others)
    elif plugin.dist != OURS:
        from alignkit.compatible import unfit

        if wanted := unfit(entry):
            plugin.status, plugin.detail = "incompatible", wanted


def _activate(plugin: Plugin, entry: EntryPoint, offers: Offers) -> None:
    try:
        with redirect_stdout(sys.stderr):  # what it prints is no part of what a command says
            components = components_of(entry.load())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - one bad plugin must not stop a run
        from alignkit.unused import broken

        plugin.status, plugin.detail = "broken", broken(plugin, error)
        plugin.traceback = traceback.format_exc()
        return
    for kind, component in components if plugin.dist != OURS else ():
        if kind == "command" and (owner := _owner(component.name, offers)):
            word = component.name.replace("_", "-")
            plugin.status = "conflict"
            plugin.detail = f"command {word!r} is that of {owner}; rename {plugin.name}'s"
            return
    for kind, component in components:
        offer(plugin, kind, component, offers)


def _owner(name: str, offers: Offers) -> str:
    """Return the owner of a command name that no third party may offer, or ``""``."""
    built_in = [p for p, _ in offers.get(("command", name), ()) if p.dist == OURS]
    return f"plugin {built_in[0].name} of {OURS}" if built_in else "the kernel" * (name in COMMANDS)


def offer(plugin: Plugin, kind: str, component: Component[Any], offers: Offers) -> None:
    """Add a plugin's component to ``offers``."""
    offers[kind, component.name].append((plugin, component))
    plugin.provides.setdefault(kind, []).append(component.name)
