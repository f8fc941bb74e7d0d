"""Go on with a run that was ended before its end, exactly where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alignkit.lifecycle import determinism, resume_point
from alignkit.lifecycle.checkpoints import Store
from alignkit.lifecycle.files import write_json
from alignkit.lifecycle.fingerprint import NAME as FINGERPRINT
from alignkit.lifecycle.fingerprint import fingerprint
from alignkit.lifecycle.lock import locked, refuse_ranks
from alignkit.lifecycle.manifest import machine, now
from alignkit.lifecycle.resume_point import Start
from alignkit.lifecycle.run_dir import RECIPE, manifest_of
from alignkit.plugins import Registry
from alignkit.recipe import load
from alignkit.run import Run, built, carry_out
from alignkit.security.left_out import only_secrets
from alignkit.security.secrets import redact, redact_command
from alignkit.security.text import say


def resume(
    folder: Path,
    registry: Registry,
    command: Sequence[str],
    *,
    allow_changes: bool = False,
    secrets: Sequence[str] = (),
) -> Run | None:
    """Go on with a run that was ended before its end; None if it is done.

    ``secrets`` are the ``key=value`` that the record of the recipe leaves out. Raises
    AlignkitError if what it depends on has changed, unless ``allow_changes``; else as
    :func:`execute`. Nothing in the directory is touched before everything is built.
    """
    refuse_ranks()
    folder = folder.absolute()
    manifest = manifest_of(folder)
    if manifest.facts.get("status") == "done":
        return None
    only_secrets(folder / RECIPE, secrets)
    node = load(folder / RECIPE, registry, (), secrets)
    if manifest.facts.get("deterministic"):
        determinism.demand()
    with locked(folder):
        here = machine()
        changed = resume_point.changes(folder, node, here)
        if changed and not allow_changes:
            raise resume_point.too_many(changed, folder)
        store = Store(folder / "checkpoints")
        found = store.newest(say)
        start = Start(*found) if found else resume_point.BEGINNING
        algorithm = built(node)
        store.tidy()
        resume_point.rewind(folder, start)
        if changed:
            write_json(folder / FINGERPRINT, fingerprint(node, here))
        words = redact_command(command)
        name = start.checkpoint.name if start.checkpoint else None
        first = {"checkpoint": name, "first_step": start.first_step, "changes": changed}
        again = [*manifest.facts.get("resumes", []), {"at": now(), "command": words, **first}]
        manifest.facts |= {"status": "running", "resumes": again}
        manifest.write()
        run = Run(folder, redact(node.dump()), start)
        run.say(f"going on from {name}" if name else "no checkpoint yet: going on from the start")
        return carry_out(algorithm, run, manifest)
