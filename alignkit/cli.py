"""The ``alignkit`` command: parse the command line, call the kernel, print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from alignkit import recipe
from alignkit.commands import FILE, GIVEN, Commands, call, command_line, plugin_option
from alignkit.errors import in_shell, shown
from alignkit.execution import execute
from alignkit.lifecycle import meeting
from alignkit.lifecycle.ranks import follows
from alignkit.plugins import Registry
from alignkit.security.secrets import redact_text
from alignkit.security.text import say


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="alignkit")
def main() -> None:
    """Align language models with algorithms made of plugins."""


@main.command()
@click.argument("path", metavar="RECIPE", type=GIVEN)
@click.option("--with", "overlays", multiple=True, type=GIVEN, help="Lay this TOML file on top.")
@click.option("-s", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one value.")
@click.option("--out", type=FILE, help="Run directory; must be new or empty. Default: runs/…")
@click.option("--dry-run", is_flag=True, help="Check the recipe, print the plan, write nothing.")
@click.option("--profile", is_flag=True, help="Trace two steps; print where their time went.")
@click.option("--deterministic", is_flag=True, help="Kernels that repeat bit for bit; slower.")
@plugin_option
def run(
    path: Path,
    overlays: Sequence[Path],
    overrides: Sequence[str],
    out: Path | None,
    dry_run: bool,
    profile: bool,
    deterministic: bool,
    registry: Registry,
) -> None:
    """Run RECIPE, a TOML file."""
    from alignkit.plan import refuse_without_room, text

    if not dry_run:
        meeting.start()
    node = recipe.load(path, registry, overlays, overrides)
    refuse_without_room(node, out)
    if dry_run:
        say(redact_text(text(node, path)))
        return
    if follows():
        from alignkit.following import follow

        follow(node, deterministic=deterministic)
        return
    for rename in node.renamed:
        say(redact_text(f"{rename}\n  alignkit migrate {in_shell(path)} rewrites it"), err=True)
    for note in node.left_out:
        say(redact_text(f"left out: {note}"))
    how = {"profiled": profile, "deterministic": deterministic}
    done = execute(node, path, out, command_line(), **how)
    call(registry, "show", folder=done.dir, brief=True)


@main.command()
@click.argument("folder", metavar="RUN_DIR", type=GIVEN)
@click.option("--allow-changes", is_flag=True, help="Even if code, data or machine have changed.")
@click.option(
    "-s", "overrides", multiple=True, metavar="KEY=VALUE", help="A larger n_steps; a secret."
)
@plugin_option
def resume(folder: Path, allow_changes: bool, overrides: Sequence[str], registry: Registry) -> None:
    """Go on with the run in RUN_DIR exactly where it stopped."""
    from alignkit.resume import resume as go_on

    words = command_line()
    meeting.start()
    run = go_on(folder, registry, words, allow_changes=allow_changes, overrides=overrides)
    if run is None:
        say(f"{shown(folder)} is finished; there is nothing to do")
        meeting.tell("there is nothing to do", 0)
    elif not follows():
        call(registry, "show", folder=run.dir, brief=True)


@main.command("list-plugins")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, tracebacks included.")
@click.option("--strict", is_flag=True, help="Exit 1 if a plugin is broken or cannot be used.")
@plugin_option
def list_plugins(as_json: bool, strict: bool, registry: Registry) -> None:
    """List every plugin, its state and what it provides."""
    from alignkit.listing import as_text

    say(as_text(registry, as_json=as_json))
    if strict and any(p.status not in ("active", "disabled") for p in registry.plugins):
        raise SystemExit(1)
