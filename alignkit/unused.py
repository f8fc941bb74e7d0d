"""Why a plugin was not used, and what to do about it. Loaded for this only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from alignkit.errors import did_you_mean, shown
from alignkit.vetting import OURS


class Plugin(Protocol):
    """What is told of a plugin: the fields of ``alignkit.plugins.Plugin``."""

    name: str
    dist: str
    version: str
    detail: str
    file: Path | None

    @property
    def status(self) -> str:
        """One of the five states."""
        ...


class Registry(Protocol):
    """Where a name was looked for."""

    @property
    def plugins(self) -> Sequence[Plugin]:
        """All plugins, those that are not active, too."""
        ...

    def names(self, kind: str) -> list[str]:
        """Return the names that are offered for a kind."""
        ...


Offer = tuple[Plugin, Any]


def missing(registry: Registry, kind: str, name: str, found: Sequence[Offer]) -> str:
    """Return why a component's name finds nothing, or more than one thing, and what to do."""
    plugin, _, bare = name.rpartition("/")
    if found:
        return _ambiguous(kind, bare, found)
    known = ", ".join(registry.names(kind)) or "none"
    guess = did_you_mean(bare, registry.names(kind))
    return f"unknown {kind} {name!r}.{guess} Known: {known}.{not_searched(registry, plugin)}"


def _ambiguous(kind: str, bare: str, found: Sequence[Offer]) -> str:
    """Return that several plugins offer a component of one name, and what to do."""
    choices = " or ".join(f'"{p.name}/{bare}" ({p.dist} {p.version})' for p, _ in found)
    said = f"{kind} {bare!r} is offered by {len(found)} plugins; write {choices}"
    if kind == "command":  # its own options are not known yet
        return f"{said}."
    spare = next((p.name for p, _ in reversed(found) if p.dist != OURS), found[-1][0].name)
    return f"{said}, or leave one out with -p no:{spare}."


def not_searched(registry: Registry, wanted: str = "") -> str:
    """Return, in brackets, inactive plugins that may have what was looked for, and why.

    ``wanted`` is the plugin that was named, ``""`` if none was: of others, nothing is said.
    """
    down = {p.name: p for p in registry.plugins if p.status != "active" and wanted in ("", p.name)}
    if not down:
        return ""
    said = [_state(p, detailed=len(down) == 1) for p in down.values()]  # a line holds one reason
    return f" (not searched: {', '.join(said)}; see `alignkit list-plugins`)"


def _state(plugin: Plugin, *, detailed: bool) -> str:
    state = f"{plugin.name} is {'in ' * (plugin.status == 'conflict')}{plugin.status}"
    return f"{state}: {plugin.detail}" if detailed and plugin.detail else state


def claimed(plugin: Plugin, others: Sequence[Plugin]) -> str:
    """Return that other packages have a plugin of this name, too, and what to do."""
    if any(other.dist == OURS for other in others):
        return (
            f"{plugin.name!r} is the name of a plugin of alignkit's own; "
            f"rename the entry point of {plugin.dist} {plugin.version}, or uninstall it"
        )
    owners = " and ".join(sorted(f"{p.dist} {p.version}" for p in (plugin, *others)))
    return (
        f"{owners} both have a plugin {plugin.name!r}; "
        "uninstall one of them, or rename its entry point"
    )


def broken(plugin: Plugin, error: BaseException) -> str:
    """Return the first line of what a plugin's module raised, and where to read the rest."""
    first = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"{first}; `alignkit check {plugin.name}` shows where"


def same_name(file: Path, known: Plugin) -> str:
    """Return that a plugin file has the name of another plugin, and what to do."""
    whose = owner(known)
    return (
        f"{shown(file)} would be plugin {known.name!r}, which {whose} is already; rename the "
        f"file, or, if {whose} is meant, leave {shown(file)} out of `plugins` and -p"
    )


def same_component(file: Path, kind: str, name: str, known: Plugin) -> str:
    """Return that a plugin file offers what another plugin does, and what to do."""
    if known.file:
        return (
            f"{shown(file)} offers {kind} {name!r}, and so does {owner(known)}; "
            "give it another name in one of them"
        )
    remedy = f", or leave that plugin out with -p no:{known.name}" * (known.dist != OURS)
    return (
        f"{shown(file)} offers {kind} {name!r}, and so does plugin {known.name} of "
        f"{owner(known)}; give it another name in {shown(file)}{remedy}"
    )


def owner(plugin: Plugin) -> str:
    """Return the file or the package that a plugin comes from."""
    return shown(plugin.file) if plugin.file else f"{plugin.dist} {plugin.version}"


def not_imported(file: Path, error: BaseException) -> str:
    """Return what to do where a plugin file imports a module beside it, or ``""``."""
    name = (getattr(error, "name", None) or "").partition(".")[0]
    beside = isinstance(error, ModuleNotFoundError) and name.isidentifier()
    if not beside or not (file.parent / f"{name}.py").is_file():
        return ""
    return (
        f"; a plugin file cannot import {name}.py beside it: move that code into "
        f"{shown(file)}, or make a package (`alignkit package`) of both"
    )
