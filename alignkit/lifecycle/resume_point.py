"""A run directory to resume: find what has changed since, and restore it to a checkpoint."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shlex import quote
from typing import Any

from alignkit.errors import AlignkitError, in_shell, shown
from alignkit.lifecycle.checkpoints import Mark
from alignkit.lifecycle.fingerprint import NAME as FINGERPRINT
from alignkit.lifecycle.fingerprint import Fingerprint, fingerprint
from alignkit.lifecycle.folders import discard
from alignkit.lifecycle.run_dir import METRICS
from alignkit.recipe import Node


@dataclass(frozen=True, slots=True)
class Start:
    """The point from which a run is resumed."""

    checkpoint: Path | None
    """None = from the beginning: it was ended before its first checkpoint."""
    mark: Mark

    @property
    def first_step(self) -> int:
        """The first step that is logged from now on."""
        return self.mark.step + 1 if self.checkpoint else 0

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest tells of it."""
        name = self.checkpoint.name if self.checkpoint else None
        return {"checkpoint": name, "first_step": self.first_step}

    @property
    def announced(self) -> str:
        """The line for the user."""
        if self.checkpoint is None:
            return "no checkpoint yet: going on from the start"
        return f"going on from {self.checkpoint.name}"


_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!]+")

BEGINNING = Start(None, Mark(0, 0, 0, 0.0))


def changes(folder: Path, node: Node, machine: dict[str, Any]) -> list[str]:
    """Return what has changed since the run started and could change its numbers."""
    try:
        before = json.loads((folder / FINGERPRINT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [f"{FINGERPRINT}, which says what the run was started with, cannot be read"]
    for old in node.renamed:  # another name is no change
        for values in (before.get("recipe", {}), before.get("file", {})):
            if ".".join(old.key) in values:
                values[".".join((*old.key[:-1], old.now))] = values.pop(".".join(old.key))
    return differences(before, fingerprint(node, machine))


def differences(old: Fingerprint, new: Fingerprint) -> list[str]:
    """Return what differs, in words."""
    found = []
    other = old.get("hardware", {}).get("ranks") != new["hardware"].get("ranks")
    number_of_ranks = {("hardware", "ranks"), ("hardware", "threads")} if other else set()
    for what in new:
        before, after = old.get(what, {}), new[what]
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) == after.get(name) or (what, name) in number_of_ranks:
                continue
            plain = what in ("version", "hardware")
            was = f": {after.get(name, 'none')}, was {before.get(name, 'none')}" if plain else ""
            found.append(f"{what} {name}{was}")
    return found


def upgrades(facts: dict[str, Any], here: dict[str, Any], node: Node) -> list[str]:
    """Return the packages whose versions differ from the run's last ones: before, now.

    ``facts`` are those of its manifest, ``here`` those of the current machine.
    """
    last = facts.get("resumes") or [{}]
    before = last[-1].get("versions") or versions(facts, facts.get("components", ()))
    now = present(here, node)
    both = sorted(before.keys() | now.keys())
    return [
        f"{name} {before.get(name, 'none')} -> {now.get(name, 'none')}"
        for name in both
        if before.get(name) != now.get(name)
    ]


def present(here: dict[str, Any], node: Node) -> dict[str, str]:
    """Return the installed versions, including those of the recipe's plugins."""
    used = [{"dist": n.plugin.dist, "version": n.plugin.version} for n in node.walk()]
    return versions(here, used)


def not_installed(facts: dict[str, Any]) -> dict[str, str]:
    """Return the plugins' packages of a run's manifest that are missing now, with versions.

    Names that no package can have, such as those of plugin files, are left out.
    """
    last = facts.get("resumes") or [{}]
    parts = facts.get("components", ())
    used = {str(c["dist"]): str(c["version"]) for c in parts if c.keys() >= {"dist", "version"}}
    used |= {d: str(v) for d, v in last[-1].get("versions", {}).items() if d in used}
    return {
        name: found
        for name, found in sorted(used.items())
        if _PACKAGE.fullmatch(f"{name}=={found}") and not name.endswith(".py") and _missing(name)
    }


def _missing(dist: str) -> bool:
    try:
        return not version(dist)
    except PackageNotFoundError:
        return True


def versions(facts: dict[str, Any], components: Iterable[dict[str, str]]) -> dict[str, str]:
    """Return the versions of the packages and of the plugins' distributions, by name."""
    return {c["dist"]: c["version"] for c in components} | dict(facts.get("versions", {}))


def too_many(
    found: list[str], folder: Path, upgraded: Sequence[str] = (), lengths: Sequence[str] = ()
) -> AlignkitError:
    """Return the error that refuses to resume after changes.

    ``upgraded``: old and new versions; ``lengths``: the new length that was asked for.
    """
    asked = [f"recipe {item.partition('=')[0].strip()}" for item in lengths]
    lines = "\n".join(f"  {line}" for line in found if line not in asked)
    if upgraded:
        lines += f"\nversions: {', '.join(upgraded)}"
    return AlignkitError(
        f"{shown(folder)} would not go on as it began; since it was started, these have changed:\n"
        f"{lines}\nput them back, or go on all the same: alignkit resume "
        f"{' '.join([in_shell(folder), *(f'-s {quote(item)}' for item in lengths)])} "
        "--allow-changes"
    )


def rewind(folder: Path, start: Start) -> None:
    """Restore the directory to the checkpoint, without rows or files of later steps."""
    metrics = folder / METRICS
    have = metrics.stat().st_size if metrics.exists() else 0
    if have < start.mark.metrics_bytes:
        raise AlignkitError(
            f"{shown(metrics)} has {have:,} bytes and had {start.mark.metrics_bytes:,} at the "
            f"checkpoint: rows were lost; without them the run cannot be made whole again"
        )
    if metrics.exists():
        with metrics.open("r+b") as file:
            file.truncate(start.mark.metrics_bytes)
    for name in ("rollouts", "eval"):
        for path in (folder / name).rglob("step_*.jsonl"):
            number = path.stem.removeprefix("step_")
            if number.isdigit() and int(number) >= start.first_step:
                path.unlink()
    for name in ("error.txt", "stopped.json"):
        (folder / name).unlink(missing_ok=True)
    if (folder / "final").is_dir():
        discard(folder / "final")


def refuse_links(folder: Path) -> None:
    """Raise AlignkitError for a link in a run directory, as a run would write elsewhere through it.

    Resuming deletes what comes after the checkpoint, and the directory may be somebody else's.
    """
    within = (path for name in ("eval", "rollouts") for path in _below(folder / name))
    for path in (*folder.iterdir(), *within):
        if path.is_symlink():
            raise AlignkitError(
                f"{shown(path)} is a symbolic link, and resuming would write or delete where it "
                f"leads to; put what it leads to in its place"
            )


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        yield from (Path(place) / name for name in (*folders, *files))
