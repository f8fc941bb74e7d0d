"""The command that grades saved responses: audits a reward against any model's outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from alignkit import Component, Params, hookimpl
from alignkit.commands import FILE, plugin_option
from alignkit.plugins import Registry
from alignkit.security.text import say


class Grade(Params[click.Command]):
    """Grade the saved responses in FILE; print the categories, write each verdict.

    FILE is read as data sets are: JSON Lines, JSON, CSV, TSV or Parquet, also with gzip.
    """

    def build(self) -> click.Command:
        @click.command()
        @click.argument("path", metavar="FILE", type=FILE)
        @click.option(
            "--reward", required=True, help="A reward_fn's name, or a recipe with a [reward]."
        )
        @click.option(
            "-s", "overrides", multiple=True, metavar="KEY=VALUE", help="Set a key of the reward."
        )
        @click.option("--response", help="Column with the response.")
        @click.option("--gold", "--answer", "gold", help="Column with the gold answer.")
        @click.option("--question", help="Column with the question.")
        @click.option("--id", "id_", help="Column that names the row; else its line does.")
        @click.option("--limit", type=click.IntRange(min=1), help="Grade only so many rows.")
        @click.option("--out", type=FILE, help="Verdicts go here. Default: FILE.verdicts.jsonl")
        @plugin_option
        def grade(
            path: Path,
            reward: str,
            overrides: Sequence[str],
            out: Path | None,
            limit: int | None,
            registry: Registry,
            **columns: str | None,
        ) -> None:
            from alignkit_grading.files import grade_file, reward_for

            judge = reward_for(reward, registry, overrides)
            mapped = {name.rstrip("_"): column for name, column in columns.items() if column}
            say(grade_file(path, judge, columns=mapped, out=out, limit=limit).table())

        return grade


@hookimpl
def command() -> Iterator[Component[click.Command]]:
    """Offer ``grade``."""
    yield Component("grade", Grade)
