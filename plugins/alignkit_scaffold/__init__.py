"""Commands that write a start: a package with a plugin, or a folder of recipes to work in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from alignkit import Component, Params, hookimpl
from alignkit.commands import FILE, GIVEN, command_of, registry_in
from alignkit.errors import in_shell
from alignkit.kinds import HOOKS
from alignkit.security.text import say


class NewPlugin(Params[click.Command]):
    """Write a package alignkit-NAME with a working component, its tests and a recipe.

    With --file it is one file, NAME.py, to be tried at once, and NAME.toml that runs it.
    """

    def build(self) -> click.Command:
        @click.command()
        @click.argument("name")
        @click.option("--kind", required=True, type=click.Choice(HOOKS), help="What it offers.")
        @click.option("--dest", type=FILE, default=Path("."), help="Folder to put it in.")
        @click.option("--file", "single", is_flag=True, help="One file in place of a package.")
        @click.pass_context
        def new_plugin(ctx: click.Context, name: str, kind: str, dest: Path, single: bool) -> None:
            from alignkit_scaffold import scaffold
            from alignkit_scaffold.single import new_file, next_for_file

            if single:
                files = new_file(name, kind, dest.absolute(), registry_in(ctx))
                say(next_for_file(files, kind, name))
                return
            folder = scaffold.new_plugin(name, kind, dest.absolute(), registry_in(ctx))
            say(scaffold.next_steps(folder, name, kind))

        return new_plugin


class Package(Params[click.Command]):
    """Write a package alignkit-NAME, to be published, around FILE, the plugin NAME.py."""

    def build(self) -> click.Command:
        @click.command()
        @click.argument("file", type=GIVEN)
        @click.option("--dest", type=FILE, default=Path("."), help="Folder to put it in.")
        @click.pass_context
        def package(ctx: click.Context, file: Path, dest: Path) -> None:
            from alignkit_scaffold import single

            folder = single.package(file.absolute(), dest.absolute(), registry_in(ctx))
            say(single.next_for_package(folder))

        return package


class Init(Params[click.Command]):
    """Copy the recipes, and the model and data they start from, into DIR to change there."""

    def build(self) -> click.Command:
        @click.command()
        @click.argument("folder", metavar="DIR", type=FILE)
        @click.option(
            "--cs336",
            "edition",
            metavar="YEAR",
            help="Add adapters and a guide for CS336's assignment 5 of 2025 or 2026.",
        )
        @click.pass_context
        def init(ctx: click.Context, folder: Path, edition: str | None) -> None:
            from alignkit_scaffold import scaffold

            course = None if edition is None else _course(ctx, edition)
            for recipe_file in scaffold.init(folder.absolute()):
                say(f"{folder}/{recipe_file}")
            if course is not None:
                ctx.invoke(course, edition=edition, folder=folder)
                return
            say(f"next: cd {in_shell(folder)} && alignkit run recipes/grpo_offpolicy.toml")

        return init


def _course(ctx: click.Context, edition: str) -> click.Command:
    """Return the command that adds to a course folder, if it has that edition."""
    found = command_of(registry_in(ctx), "cs336")
    kind = next(p.type for p in found.params if p.name == "edition")
    kind.convert(edition, None, ctx)  # ctx.invoke converts nothing
    return found


@hookimpl
def command() -> Iterator[Component[click.Command]]:
    """Offer ``new-plugin``, ``package`` and ``init``."""
    yield Component("new_plugin", NewPlugin)
    yield Component("package", Package)
    yield Component("init", Init)
