"""Resume an interrupted run exactly where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tomli_w

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
from alignkit.recipe import load
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
    node = load(folder / RECIPE, registry, (), overrides)
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
