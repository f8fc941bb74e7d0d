"""The command that makes the runs of a sweep: a grid or list of variants, times seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from alignkit import Component, Params, hookimpl
from alignkit.commands import FILE, call, plugin_option
from alignkit.errors import RunFailed
from alignkit.plugins import Registry
from alignkit.security.text import say


class SweepCommand(Params[click.Command]):
    """Make the runs of SWEEP, a TOML file, that are missing; then write their report."""

    def build(self) -> click.Command:
        @click.command()
        @click.argument("path", metavar="SWEEP", type=FILE)
        @click.option("--with", "overlays", multiple=True, type=FILE,
                      help="Lay this file on all recipes.")  # fmt: skip
        @click.option("-s", "overrides", multiple=True, metavar="KEY=VALUE",
                      help="Override one value.")  # fmt: skip
        @click.option("--out", type=FILE,
                      help="Directory of the runs. Default: runs/ and SWEEP's name")  # fmt: skip
        @click.option("--jobs", default=1, type=click.IntRange(1),
                      help="Runs at a time.  [default: 1]")  # fmt: skip
        @click.option("--list", "listing", is_flag=True,
                      help="Show the runs and their state; run none.")  # fmt: skip
        @click.option("--only", multiple=True, metavar="NAME",
                      help="Variants of this name or pattern.")  # fmt: skip
        @plugin_option
        def sweep(
            path: Path,
            overlays: Sequence[Path],
            overrides: Sequence[str],
            out: Path | None,
            jobs: int,
            listing: bool,
            only: Sequence[str],
            registry: Registry,
        ) -> None:
            from alignkit_sweep import plans, runner, variants

            swept = variants.Sweep(path, registry, overlays, overrides)
            planned = plans.Plans(swept, out or plans.default_folder(path, overlays))
            if listing:
                say(planned.listing(only))
                return
            off = [word for name in registry.disabled for word in ("-p", f"no:{name}")]
            made = runner.Runner(planned, jobs, off, say)
            made.run(only)
            if folders := [run.path for run in planned.finished()]:
                page = {"out": planned.out / "report.html", "title": swept.title, "table": True}
                call(registry, "report", folders=folders, **page)
            if made.failures:
                raise RunFailed(runner.failed(made.failures))

        return sweep


@hookimpl
def command() -> Iterator[Component[click.Command]]:
    """Offer ``sweep``."""
    yield Component("sweep", SweepCommand)
