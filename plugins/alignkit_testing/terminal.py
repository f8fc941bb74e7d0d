"""Run the command line in this process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CliResult:
    """What a command did."""

    status: int
    """Exit status: 0 done, 1 the run failed, 2 the command or recipe is wrong."""
    stdout: str
    stderr: str


def run_cli(*args: object) -> CliResult:
    """Run ``alignkit ARGS...`` in this process; an unexpected exception comes through.

    >>> run_cli("run", "no_such.toml").status
    2
    """
    from click.testing import CliRunner

    from alignkit.cli import main

    done = CliRunner().invoke(main, [str(arg) for arg in args])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return CliResult(done.exit_code, done.stdout, done.stderr)
