"""Resume an interrupted run exactly where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w

from alignkit.errors import AlignkitError, RecipeError
from alignkit.execution import Run, built, carry_out, recorded
from alignkit.following import follow
from alignkit.lifecycle import determinism, longer, ranks, resume_point
from alignkit.lifecycle.checkpoints import Store
from alignkit.lifecycle.files import write_json, write_whole
from alignkit.lifecycle.fingerprint import NAME as FINGERPRINT
from alignkit.lifecycle.fingerprint import fingerprint
from alignkit.lifecycle.lock import locked
from alignkit.lifecycle.manifest import machine, now
from alignkit.lifecycle.resume_point import Start
from alignkit.lifecycle.run_dir import RECIPE, manifest_of
from alignkit.lifecycle.signals import Signals
from alignkit.plugins import Registry
from alignkit.recipe import Node, load
from alignkit.security.left_out import only_secrets
from alignkit.security.recorded import without_secrets
from alignkit.security.secrets import redact_command
from alignkit.security.text import say


def resume(
    folder: Path,
    registry: Registry,
    command: Sequence[str],
    *,
    allow_changes: bool = False,
    overrides: Sequence[str] = (),
) -> Run | None:
    """Resume an interrupted run, or extend a run; return None if it is done.

    ``overrides`` are ``key=value`` items: the secrets that the recorded recipe leaves out, and
    ``n_steps`` or ``epochs`` to extend a run. Raises AlignkitError if what it depends on has
    changed, unless ``allow_changes``; otherwise the same errors as :func:`execute`. Nothing in the
    directory is touched before everything is built.
    """
    folder = folder.absolute()
    manifest = manifest_of(folder)
    resume_point.refuse_links(folder)
    lengths, secrets = longer.split(overrides)
    done = manifest.facts.get("status") == "done"
    idle = done and not lengths and not longer.edited(folder)
    if secrets or not idle:
        only_secrets(folder / RECIPE, secrets)
    if idle:
        return None
    node = _recipe(folder, registry, overrides, manifest.facts)
    if done or lengths:
        longer.refuse_less(folder, node.params)
    if manifest.facts.get("deterministic"):
        determinism.demand()
    if ranks.follows():
        return follow(node)
    with locked(folder):
        here = machine()
        changed = resume_point.changes(folder, node, here)
        if done and not changed:
            return None
        upgraded = resume_point.upgrades(manifest.facts, here, node)
        free = {f"recipe {key}" for key in longer.LENGTHS} if done or lengths else set()
        if not (allow_changes or free.issuperset(changed)):
            raise resume_point.too_many(changed, folder, upgraded, lengths)
        store = Store(folder / "checkpoints")
        found = store.newest(say)
        start = Start(*found) if found else resume_point.BEGINNING
        if done and not found:
            raise longer.unsaved(folder, node)
        algorithm, signals = built(node), Signals()
        with signals.installed(held=True):
            store.tidy()
            resume_point.rewind(folder, start)
            plan = without_secrets(node)
            if changed:
                write_json(folder / FINGERPRINT, fingerprint(node, here))
            if lengths:
                write_whole(folder / RECIPE, tomli_w.dumps(recorded(plan, node, folder)))
            seen = {"at": now(), "command": redact_command(command), **start.facts}
            seen |= {"versions": resume_point.present(here, node), "changes": changed}
            again = [*manifest.facts.get("resumes", []), seen]
            manifest.facts |= {"status": "running", "resumes": again}
            manifest.write()
            run = Run(folder, plan, start)
            run.signals = signals
            run.say(start.announced)
            if upgraded:
                run.say(f"versions since it last ran: {', '.join(upgraded)}")
            if free.intersection(changed) and (said := longer.remark(node)):
                run.say(said)
            return carry_out(algorithm, run, manifest)


def _recipe(
    folder: Path, registry: Registry, overrides: Sequence[str], facts: dict[str, Any]
) -> Node:
    """Return the run's recipe; an error says which packages the run used that are gone."""
    try:
        return load(folder / RECIPE, registry, (), overrides)
    except RecipeError as error:
        gone = resume_point.not_installed(facts)
        if not gone:
            raise
        named = " and ".join(" ".join(pair) for pair in gone.items())
        wanted = " ".join(f"{name}=={version}" for name, version in gone.items())
        raise AlignkitError(
            f"{error}\nthe run used {named}, not installed here: pip install {wanted}"
        ) from error
