"""Commands that show what recipes and components are and do, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from alignkit import AlignkitError, Component, Params, hookimpl
from alignkit.commands import GIVEN, plugin_option
from alignkit.kinds import HOOKS
from alignkit.plugins import Registry
from alignkit.security.text import say

COUNT, ABOVE_0 = click.IntRange(1), click.FloatRange(0, min_open=True)


class Explain(Params[click.Command]):
    """Say what RECIPE does: its components, formulas and values, and what follows from them."""

    def build(self) -> click.Command:
        @click.command()
        @click.argument("path", metavar="RECIPE", type=GIVEN)
        @click.option(
            "--with", "overlays", multiple=True, type=GIVEN, help="Lay this TOML file on top."
        )
        @click.option(
            "-s", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one value."
        )
        @click.option(
            "--like", metavar="RUN_DIR", type=GIVEN, help="Estimate the time from this run's."
        )
        @click.option("--ranks", default=1, type=COUNT,
                      help="Memory and time on each of so many processes.")  # fmt: skip
        @click.option("--nodes", default=1, type=COUNT, help="Machines they are on.  [default: 1]")
        @click.option("--card", type=ABOVE_0, metavar="GB",
                      help="Memory of the card of each, such as 40.")  # fmt: skip
        @click.option("--link", type=ABOVE_0, metavar="GB/S", help="Bandwidth between them.")
        @plugin_option
        def explain(
            path: Path,
            overlays: Sequence[Path],
            overrides: Sequence[str],
            like: Path | None,
            ranks: int,
            nodes: int,
            card: float | None,
            link: float | None,
            registry: Registry,
        ) -> None:
            from alignkit import recipe
            from alignkit.security.secrets import redact_text
            from alignkit_explain.ranks import OnRanks
            from alignkit_explain.recipes import explained
            from alignkit_explain.told import Asked

            if ranks % nodes:
                raise AlignkitError(f"--ranks {ranks}: each of {nodes} nodes has as many")
            asked = Asked(OnRanks(ranks, nodes), card and card * 1e9, link and link * 1e9)
            node = recipe.load(path, registry, overlays, overrides)
            say(redact_text(explained(node, registry, like, asked)))

        return explain


class Describe(Params[click.Command]):
    """Show the fields, defaults, documentation and source of the component NAME.

    KIND "table" tells of a table of fixed shape: eval, eval.sets, checkpoint, lora and others.
    """

    def build(self) -> click.Command:
        @click.command()
        @click.argument("kind", metavar="KIND", type=click.Choice([*HOOKS, "table"]))
        @click.argument("name")
        @plugin_option
        def describe(kind: str, name: str, registry: Registry) -> None:
            from alignkit_explain.describe import component, table

            if kind == "table":
                say(table(name.strip("[]"), registry))
                return
            try:
                offer = registry.get(kind, name.replace("-", "_") if kind == "command" else name)
            except LookupError as error:
                raise AlignkitError(str(error)) from None
            say(component(kind, offer))

        return describe


class Schema(Params[click.Command]):
    """Print a JSON Schema of recipes, for editors."""

    def build(self) -> click.Command:
        @click.command()
        @plugin_option
        def schema(registry: Registry) -> None:
            from alignkit_explain.schema import recipe_schema

            say(json.dumps(recipe_schema(registry), indent=2))

        return schema


class Migrate(Params[click.Command]):
    """Rewrite the keys of RECIPE that an earlier version called by another name."""

    def build(self) -> click.Command:
        @click.command()
        @click.argument("path", metavar="RECIPE", type=GIVEN)
        @click.option("--dry-run", is_flag=True, help="Show the change; write nothing.")
        @plugin_option
        def migrate(path: Path, dry_run: bool, registry: Registry) -> None:
            from alignkit_explain.migrate import migrated

            found = migrated(path, registry)
            say(found.text)
            if not dry_run:
                found.write()

        return migrate


@hookimpl
def command() -> Iterator[Component[click.Command]]:
    """Offer ``explain``, ``describe``, ``schema`` and ``migrate``."""
    yield Component("explain", Explain)
    yield Component("describe", Describe)
    yield Component("schema", Schema)
    yield Component("migrate", Migrate)
