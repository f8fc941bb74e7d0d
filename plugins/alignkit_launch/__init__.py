"""The command ``launch``: a run as a batch job of SLURM or PBS, or on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from alignkit import Component, Params, hookimpl
from alignkit.commands import FILE, GIVEN, plugin_option
from alignkit.errors import shown
from alignkit.plugins import Registry
from alignkit.security.text import say

COUNT = click.IntRange(1)


class Launch(Params[click.Command]):
    """Print the script that runs RECIPE as a batch job; with --submit, submit it.

    The job resumes itself after a time limit or a pre-emption. The recipe is checked first.
    """

    def build(self) -> click.Command:
        @click.command()
        @click.argument("path", metavar="RECIPE", type=GIVEN)
        @click.option("--with", "overlays", multiple=True, type=GIVEN,
                      help="Lay this TOML file on top.")  # fmt: skip
        @click.option("-s", "overrides", multiple=True, metavar="KEY=VALUE",
                      help="Override one value.")  # fmt: skip
        @click.option("--out", type=FILE, help="Run directory. Default: runs/ and RECIPE's name")
        @click.option("--scheduler", default="slurm", type=click.Choice(("local", "pbs", "slurm")),
                      help="Batch system.  [default: slurm]")  # fmt: skip
        @click.option("--nodes", default=1, type=COUNT, help="Machines.  [default: 1]")
        @click.option("--gpus", default=0, type=click.IntRange(0),
                      help="Cards per node.  [default: 0]")  # fmt: skip
        @click.option("--processes", type=COUNT,
                      help="Ranks per node. Default: one per card, or one")  # fmt: skip
        @click.option("--cpus", default=4, type=COUNT, help="Cores per process.  [default: 4]")
        @click.option("--time", "seconds", default="4:00:00", callback=_seconds,
                      metavar="[D-]H:MM:SS", help="Time limit.  [default: 4:00:00]")  # fmt: skip
        @click.option("--grace", default=120, type=COUNT,
                      help="Seconds before the limit, to save in.  [default: 120]")  # fmt: skip
        @click.option("--memory", metavar="SIZE", help="Memory per node, such as 64gb.")
        @click.option("--queue", metavar="NAME", help="Partition or queue.")
        @click.option("--account", metavar="NAME", help="Account that is charged.")
        @click.option("--directive", "directives", multiple=True, metavar="OPTION",
                      help="Another option for the scheduler, such as --qos=low.")  # fmt: skip
        @click.option("--allow-changes", is_flag=True,
                      help="Resume on another kind of machine too; see resume.")  # fmt: skip
        @click.option("--template", type=GIVEN, help="Fill in this template instead.")
        @click.option("--show-template", is_flag=True, help="Print the template, to edit it.")
        @click.option("--submit", is_flag=True, help="Submit the script, after a question.")
        @click.option("--yes", is_flag=True, help="Do not ask.")
        @plugin_option
        @click.pass_context
        def launch(ctx: click.Context, /, registry: Registry, **options: Any) -> None:
            from alignkit_launch.job import TEMPLATES

            if options.pop("show_template"):
                say((TEMPLATES / f"{options['scheduler']}.sh").read_text(encoding="utf-8"))
                return
            ctx.exit(_launch(registry, **options))

        return launch


def _launch(
    registry: Registry,
    *,
    path: Path,
    overlays: Sequence[Path],
    overrides: Sequence[str],
    out: Path | None,
    allow_changes: bool,
    template: Path | None,
    submit: bool,
    yes: bool,
    **request: Any,
) -> int:
    """Print a job's script, and submit it if asked to; return the exit status."""
    from alignkit import recipe
    from alignkit_launch import submission
    from alignkit_launch.asked import job_for

    recipe.load(path, registry, overlays, overrides)
    plugged = [word for name in registry.disabled for word in ("-p", f"no:{name}")]
    files = [plugin.file for plugin in registry.plugins if plugin.file]
    plugged += [word for file in files for word in ("-p", str(file.absolute()))]
    job = job_for(path, overlays, overrides, out, plugged, allow_changes=allow_changes, **request)
    text = job.text(template)
    say(text.rstrip("\n"))
    if not submit:
        say("# Not submitted: add --submit, or save this script and submit it.", err=True)
        return 0
    if not yes:
        click.confirm(f"Submit this as {job.script}?", abort=True, err=True)
    if before := submission.keep(job.script, text):
        say(f"the former script was renamed to {shown(before)}", err=True)
    if job.scheduler == "local":
        return submission.run_here(job.script)
    say(f"job {submission.submit(job.scheduler, job.script)}: {job.script}")
    return 0


def _seconds(ctx: click.Context, option: click.Parameter, given: str) -> int:
    from alignkit_launch.job import seconds_in

    try:
        return seconds_in(given)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@hookimpl
def command() -> Iterator[Component[click.Command]]:
    """Offer ``launch``."""
    yield Component("launch", Launch)
