"""The command that reports what this machine has, what fits on it, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click

from alignkit import Component, Params, hookimpl
from alignkit.commands import plugin_option
from alignkit.plugins import Registry
from alignkit.security.secrets import redact_text
from alignkit.security.text import say


class Doctor(Params[click.Command]):
    """Say what this machine has, which recipes fit on it, and what is missing, with the remedy.

    Ends with status 1 where something would stop every run.
    """

    def build(self) -> click.Command:
        @click.command()
        @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
        @plugin_option
        @click.pass_context
        def doctor(ctx: click.Context, as_json: bool, registry: Registry) -> None:
            from alignkit_doctor import diagnosis, words

            found = diagnosis.of_this_machine(registry)
            told = json.dumps(found.as_json(), indent=2) if as_json else words.report(found)
            say(redact_text(told))
            ctx.exit(int(not found.ready))

        return doctor


@hookimpl
def command() -> Iterator[Component[click.Command]]:
    """Offer ``doctor``."""
    yield Component("doctor", Doctor)
