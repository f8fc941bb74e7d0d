"""The ``alignkit`` command: parse the command line, call the kernel, print."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from alignkit import explain, plugins, recipe, scaffold
from alignkit.errors import AlignkitError, RunFailed, shown
from alignkit.kinds import KINDS
from alignkit.lifecycle.signals import Interrupted
from alignkit.run import command_line, execute
from alignkit.run import resume as go_on
from alignkit.schema import recipe_schema
from alignkit.security.secrets import redact_text

FILE = click.Path(path_type=Path)


class Commands(click.Group):
    """A command group that shows alignkit's own errors as text and never as a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AlignkitError as error:
            click.echo(redact_text(str(error)), err=True)
            ctx.exit(error.exit_status)
        except Interrupted as interrupted:
            click.echo(str(interrupted), err=True)
            ctx.exit(interrupted.exit_status)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)


def _disable(ctx: click.Context, option: click.Parameter, given: Sequence[str]) -> list[str]:
    for item in given:
        if not item.startswith("no:"):
            raise click.BadParameter(f"{item!r}: write no:NAME to switch a plugin off")
    return [item.removeprefix("no:") for item in given]


def plugin_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``-p no:NAME`` to a command."""
    return click.option(
        "-p",
        "disable",
        multiple=True,
        callback=_disable,
        metavar="no:PLUGIN",
        help="Do not import this plugin; may be repeated.",
    )(command)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="alignkit")
def main() -> None:
    """Align language models with algorithms made of plugins."""


@main.command()
@click.argument("path", metavar="RECIPE", type=FILE)
@click.option("--with", "overlays", multiple=True, type=FILE, help="Lay this TOML file on top.")
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
    disable: list[str],
) -> None:
    """Run RECIPE, a TOML file."""
    from alignkit.report.ending import summary

    node = recipe.load(path, plugins.load(disable), overlays, overrides)
    if dry_run:
        click.echo(redact_text(explain.plan(node, path)))
        return
    how = {"profiled": profile, "deterministic": deterministic}
    click.echo(summary(execute(node, path, out, command_line(), **how)))


@main.command()
@click.argument("folder", metavar="RUN_DIR", type=FILE)
@click.option("--allow-changes", is_flag=True, help="Even if code, data or machine have changed.")
@click.option("-s", "secrets", multiple=True, metavar="KEY=VALUE", help="A secret left out of it.")
@plugin_option
def resume(folder: Path, allow_changes: bool, secrets: Sequence[str], disable: list[str]) -> None:
    """Go on with the run in RUN_DIR exactly where it stopped."""
    from alignkit.report.ending import summary

    loaded, words = plugins.load(disable), command_line()
    run = go_on(folder, loaded, words, allow_changes=allow_changes, secrets=secrets)
    click.echo(summary(run) if run else f"{shown(folder)} is finished; there is nothing to do")


@main.command()
@click.argument("path", metavar="SWEEP", type=FILE)
@click.option("--with", "overlays", multiple=True, type=FILE, help="Lay this file on all recipes.")
@click.option("-s", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one value.")
@click.option("--out", type=FILE, help="Directory of the runs. Default: runs/ and SWEEP's name")
@click.option("--jobs", default=1, type=click.IntRange(1), help="Runs at a time.  [default: 1]")
@click.option("--list", "listing", is_flag=True, help="Show the runs and their state; run none.")
@click.option("--only", multiple=True, metavar="NAME", help="Variants of this name or pattern.")
@plugin_option
def sweep(
    path: Path,
    overlays: Sequence[Path],
    overrides: Sequence[str],
    out: Path | None,
    jobs: int,
    listing: bool,
    only: Sequence[str],
    disable: list[str],
) -> None:
    """Make the runs of SWEEP, a TOML file, that are missing; then write their report."""
    from alignkit.report import groups, tables, write
    from alignkit.sweep import plans, runner, variants

    swept = variants.Sweep(path, plugins.load(disable), overlays, overrides)
    planned = plans.Plans(swept, out or plans.default_folder(path, overlays))
    if listing:
        click.echo(planned.listing(only))
        return
    off = [word for name in disable for word in ("-p", f"no:{name}")]
    made = runner.Runner(planned, jobs, off, click.echo)
    made.run(only)
    found = groups.group(planned.finished())
    click.echo(tables.text(found))
    for page in write.files(found, planned.out / "report.html", swept.title):
        click.echo(f"report: {shown(page)}")
    if made.failures:
        raise RunFailed(runner.failed(made.failures))


@main.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=FILE)
@click.option(
    "--out", type=FILE, help="The page. Default: report.html in DIR, or here for several."
)
@click.option("--csv", is_flag=True, help="Also write all rows, and the table, beside the page.")
@click.option("--png", is_flag=True, help="Also write every chart as PNG; needs matplotlib.")
def report(folders: Sequence[Path], out: Path | None, csv: bool, png: bool) -> None:
    """Write one HTML page about the runs in DIR: runs, sweeps, or folders that hold some."""
    from alignkit.report import groups, write

    found = groups.load(folders)
    target = out or (folders[0] if len(folders) == 1 else Path()) / "report.html"
    for path in write.files(found, target, write.title(folders), with_csv=csv, with_png=png):
        click.echo(f"wrote {shown(path)}")


@main.command()
@click.argument("folder", metavar="RUN_DIR", type=FILE)
def show(folder: Path) -> None:
    """Tell the story of a run: plan, curves, best step, right and wrong answers."""
    from alignkit.report import story

    click.echo(story.of(folder))


@main.command()
@click.argument("path", metavar="FILE.jsonl", type=FILE)
@click.option("--reward", required=True, help="A reward_fn's name, or a recipe with a [reward].")
@click.option(
    "-s", "overrides", multiple=True, metavar="KEY=VALUE", help="Set a key of the reward."
)
@click.option("--response", help="Column with the response.")
@click.option("--gold", help="Column with the gold answer.")
@click.option("--question", help="Column with the question.")
@click.option("--id", "id_", help="Column that names the row.")
@click.option("--out", type=FILE, help="Verdicts go here. Default: FILE.verdicts.jsonl")
@plugin_option
def grade(
    path: Path,
    reward: str,
    overrides: Sequence[str],
    out: Path | None,
    disable: list[str],
    **columns: str | None,
) -> None:
    """Grade the saved responses in FILE.jsonl; print the categories, write each verdict."""
    from alignkit.grading import grade_file, reward_for

    judge = reward_for(reward, plugins.load(disable), overrides)
    mapped = {name.rstrip("_"): column for name, column in columns.items() if column}
    click.echo(grade_file(path, judge, columns=mapped, out=out).table())


@main.command("explain")
@click.argument("path", metavar="RECIPE", type=FILE)
@click.option("--with", "overlays", multiple=True, type=FILE, help="Lay this TOML file on top.")
@click.option("-s", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one value.")
@click.option("--like", metavar="RUN_DIR", type=FILE, help="Estimate the time from this run's.")
@plugin_option
def explain_recipe(
    path: Path,
    overlays: Sequence[Path],
    overrides: Sequence[str],
    like: Path | None,
    disable: list[str],
) -> None:
    """Say what RECIPE does: its components, formulas and values, and what follows from them."""
    from alignkit.explain.recipes import explained

    node = recipe.load(path, plugins.load(disable), overlays, overrides)
    click.echo(redact_text(explained(node, like)))


@main.command("list-plugins")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, tracebacks included.")
@click.option("--strict", is_flag=True, help="Exit 1 if a plugin is broken or cannot be used.")
@plugin_option
def list_plugins(as_json: bool, strict: bool, disable: list[str]) -> None:
    """List every plugin, its state and what it provides."""
    found = plugins.load(disable).plugins
    if as_json:
        click.echo(json.dumps([asdict(p) for p in found], indent=2))
    else:
        click.echo(explain.plugin_table(found))
    if strict and any(p.status not in ("active", "disabled") for p in found):
        raise SystemExit(1)


@main.command()
@click.argument("kind", type=click.Choice(list(KINDS.values())))
@click.argument("name")
@plugin_option
def describe(kind: str, name: str, disable: list[str]) -> None:
    """Show the fields, defaults, documentation and source of a component."""
    try:
        offer = plugins.load(disable).get(kind, name)
    except LookupError as error:
        raise AlignkitError(str(error)) from None
    click.echo(explain.component(kind, offer))


@main.command()
@plugin_option
def schema(disable: list[str]) -> None:
    """Print a JSON Schema of recipes, for editors."""
    click.echo(json.dumps(recipe_schema(plugins.load(disable)), indent=2))


@main.command("new-plugin")
@click.argument("name")
@click.option("--kind", required=True, type=click.Choice(list(KINDS.values())))
@click.option("--dest", type=FILE, default=Path("."), help="Folder to put the package in.")
def new_plugin(name: str, kind: str, dest: Path) -> None:
    """Write a package alignkit-NAME with a working component, its tests and a recipe."""
    folder = shown(scaffold.new_plugin(name, kind, dest.absolute(), plugins.load()))
    click.echo(
        f"wrote {folder}\n"
        f"next: pip install -e '{folder}[test]' && (cd {folder} && pytest)\n"
        f"      alignkit describe {kind} {name}\n"
        f"      alignkit run {folder}/recipe.toml"
    )


@main.command()
@click.argument("folder", metavar="DIR", type=FILE)
def init(folder: Path) -> None:
    """Copy the recipes, and the model and data they start from, into DIR to change there."""
    for recipe_file in scaffold.init(folder.absolute()):
        click.echo(f"{folder}/{recipe_file}")
    click.echo(f"next: cd {folder} && alignkit run recipes/grpo_offpolicy.toml")
