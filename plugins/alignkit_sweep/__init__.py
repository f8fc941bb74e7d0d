"""The command that makes the runs of a sweep: a grid or list of variants, times seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alignkit import Component, Params, hookimpl
from alignkit.commands import FILE, GIVEN, call, plugin_option
from alignkit.errors import AlignkitError, RunFailed
from alignkit.lifecycle.ranks import size
from alignkit.plugins import Registry
from alignkit.security.text import say

if TYPE_CHECKING:
    from alignkit_sweep.launchers import Launcher

MOST_SEEDS = 1000
"""A larger number after ``--seeds`` is taken for one seed, not for a number of seeds."""
MOST_DIGITS = 20
"""Digits from which a number is none that SLURM takes."""


class SweepCommand(Params[click.Command]):
    """Make the runs of SWEEP, a TOML file, that are missing; then write their report."""

    def build(self) -> click.Command:
        @click.command()
        @click.argument("path", metavar="SWEEP", type=GIVEN)
        @click.option("--with", "overlays", multiple=True, type=GIVEN,
                      help="Lay this file on all recipes.")  # fmt: skip
        @click.option("-s", "overrides", multiple=True, metavar="KEY=VALUE",
                      help="Override one value.")  # fmt: skip
        @click.option("--out", type=FILE,
                      help="Directory of the runs. Default: runs/ and SWEEP's name")  # fmt: skip
        @click.option("--jobs", type=click.IntRange(1),
                      help="Runs at a time.  [default: 1; with --launcher, 1000]")  # fmt: skip
        @click.option("--list", "listing", is_flag=True,
                      help="Show the runs and their state; run none.")  # fmt: skip
        @click.option("--only", multiple=True, metavar="NAME",
                      help="Variants of this name or pattern.")  # fmt: skip
        @click.option("--seeds", default="", callback=_seeds, metavar="N|LIST",
                      help="Instead of the file's: 3 (0, 1, 2), or a list: 0,5,7.")  # fmt: skip
        @click.option("--max-hours", type=float, metavar="HOURS",
                      help="Wall-clock hours a run may take, instead of the file's.")  # fmt: skip
        @click.option("--launcher", type=click.Choice(("pbs", "slurm")),
                      help="Make the runs as job arrays of this batch system.")  # fmt: skip
        @click.option("--job", "job", multiple=True, metavar="KEY=VALUE", callback=_options,
                      help="For it: time=240, partition=gpu, gpus_per_node=1, …")  # fmt: skip
        @plugin_option
        def sweep(
            path: Path,
            overlays: Sequence[Path],
            overrides: Sequence[str],
            out: Path | None,
            jobs: int | None,
            listing: bool,
            only: Sequence[str],
            seeds: Sequence[int],
            max_hours: float | None,
            launcher: str | None,
            job: Mapping[str, str],
            registry: Registry,
        ) -> None:
            from alignkit_sweep import plans, runner, variants
            from alignkit_sweep.launchers import MOST

            if size() > 1:
                raise AlignkitError(
                    "torchrun is for one run; start a sweep without it: its runs are a process each"
                )
            swept = variants.Sweep(
                path, registry, overlays, overrides, seeds=seeds, max_hours=max_hours
            )
            planned = plans.Plans(swept, out or plans.default_folder(path, overlays))
            if listing:
                say(planned.listing(only))
                return
            off = [word for name in registry.disabled for word in ("-p", f"no:{name}")]
            made = runner.Runner(planned, jobs or 1, off, say)
            if launcher or job:
                made.launcher = _launcher(launcher, planned.out, jobs or MOST, job)
            made.run(only)
            if folders := [run.path for run in planned.finished()]:
                page = {"out": planned.out / "report.html", "title": swept.title, "table": True}
                call(registry, "report", folders=folders, **page)
            if made.failures:
                raise RunFailed(runner.failed(made.failures))

        return sweep


def _seeds(ctx: click.Context, option: click.Parameter, given: str) -> Sequence[int]:
    """Return the seeds that ``--seeds`` means: a number of them, or a list with commas."""
    words = [word.strip() for word in given.split(",") if word.strip()]
    if not all(word.isdecimal() and len(word) < 20 for word in words) or (given and not words):
        raise click.BadParameter(f"{given!r}: write a number of seeds, or a list such as 0,5,7")
    found = [int(word) for word in words]
    if "," not in given and found:
        if not 0 < found[0] <= MOST_SEEDS:
            raise click.BadParameter(
                f"{given} seeds: from 1 to {MOST_SEEDS}; {given}, is that seed"
            )
        return range(found[0])
    if len(set(found)) < len(found):
        raise click.BadParameter(f"a seed stands twice in {given}")
    return found


def _options(ctx: click.Context, option: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    if wrong := [item for item in given if not all(item.partition("="))]:
        raise click.BadParameter(f"{wrong[0]!r}: write KEY=VALUE")
    return dict(item.split("=", 1) for item in given)


def _launcher(name: str | None, out: Path, jobs: int, asked: Mapping[str, str]) -> Launcher:
    """Return what submits the runs; AlignkitError where it cannot, or nothing is submitted."""
    from alignkit_sweep import pbs, slurm

    if name is None:
        raise AlignkitError("--job is for --launcher slurm or pbs; this machine takes --jobs")
    if name == "pbs":
        return pbs.Pbs(out, jobs, asked)
    typed = {key: _number(value) for key, value in asked.items()}
    return slurm.Slurm(out, jobs, typed)


def _number(text: str) -> int | str:
    """Return an integer where one is written, in as many digits as an option of SLURM can have."""
    return int(text) if text.isdecimal() and len(text) < MOST_DIGITS else text


@hookimpl
def command() -> Iterator[Component[click.Command]]:
    """Offer ``sweep``."""
    yield Component("sweep", SweepCommand)
