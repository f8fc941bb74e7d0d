"""The command ``check``.

It is apart from the package itself, whose module ``command`` would hide the hook.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignkit import AlignkitError, Component, Params, hookimpl
from alignkit.commands import plugin_option
from alignkit.plugins import Registry
from alignkit.security.text import say

if TYPE_CHECKING:
    from alignkit_testing.kit import Case


class CheckPlugin(Params[click.Command]):
    """Check PLUGIN, a file NAME.py or an installed plugin, against its components' contracts."""

    def build(self) -> click.Command:
        @click.command()
        @click.argument("plugin")
        @click.option(
            "-s",
            "values",
            multiple=True,
            metavar="KIND.NAME.KEY=VALUE",
            help="What a component needs to be built, such as loss_type.my_loss.cap=2.0.",
        )
        @click.option(
            "--ranks",
            default=1,
            type=click.IntRange(1, 8),
            help="Also run each algorithm on so many processes.  [default: 1]",
        )
        @plugin_option
        def check(plugin: str, values: Sequence[str], ranks: int, registry: Registry) -> None:
            try:
                from alignkit_testing.report import Results
            except ImportError as error:
                raise AlignkitError(f"checks need pytest ({error}): pip install pytest") from error

            found = Results()
            for case in _cases(plugin, values, registry, ranks):
                found.add(case.id, case.run)
            say(found.text())
            if found.failed:
                raise AlignkitError(found.summary)
            say(found.summary)

        return check


def _two_deep(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the values of the tables in a table, by dotted key, and what is no table itself."""
    for key, value in table.items():
        below = value.items() if isinstance(value, dict) else ()
        yield from ((f"{key}.{name}", item) for name, item in below)
        if not below:
            yield key, value


def _cases(plugin: str, values: Sequence[str], registry: Registry, ranks: int) -> Iterator[Case]:
    """Yield the checks of a file or of an installed plugin."""
    from alignkit.overrides import typed
    from alignkit.plugin_files import with_files
    from alignkit_testing.kit import checks

    given = typed(values).table
    if short := [key for key, value in _two_deep(given) if not isinstance(value, dict)]:
        raise AlignkitError(f"-s {short[0]}: write -s KIND.NAME.KEY=VALUE")
    params = {f"{kind}/{name}": table for kind in given for name, table in given[kind].items()}
    if plugin.endswith(".py"):
        known = with_files(registry, [Path(plugin)])
        yield from checks(Path(plugin).stem, params, registry=known, ranks=ranks)
    else:
        yield from checks(plugin, params, ranks=ranks)


@hookimpl
def command() -> Iterator[Component[click.Command]]:
    """Offer ``check``."""
    yield Component("check", CheckPlugin)
