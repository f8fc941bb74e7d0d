"""Commands for what others publish, and for publishing: known plugins, models on the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from alignkit import Component, Params, hookimpl
from alignkit.commands import FILE, GIVEN, plugin_option
from alignkit.kinds import HOOKS
from alignkit.plugins import Registry
from alignkit.security.text import say

INDEX = Path(__file__).parent / "index.toml"


class ListKnown(Params[click.Command]):
    """List the plugins that are known, with what they offer and whether they are installed.

    TEXT, if given, must be in the name, the kinds or the summary.
    """

    def build(self) -> click.Command:
        @click.command()
        @click.argument("text", required=False, default="")
        @click.option("--kind", type=click.Choice(HOOKS), help="Only those that offer this.")
        @click.option("--index", type=GIVEN, default=INDEX, help="Another list, such as your own.")
        @click.option("--markdown", is_flag=True, help="As Markdown, with their badges.")
        @plugin_option
        def plugins(
            text: str, kind: str | None, index: Path, markdown: bool, registry: Registry
        ) -> None:
            from alignkit_publish.index import fitting, listing, page, read

            found = fitting(read(index), text, kind)
            say(page(found) if markdown else listing(found, registry))

        return plugins


class Install(Params[click.Command]):
    """Install the plugin NAME with pip, in the environment that alignkit runs in.

    NAME is a plugin or package that `alignkit plugins` lists; a version may follow it, as in
    "tempered==0.2". The command is shown before it runs.
    """

    def build(self) -> click.Command:
        @click.command()
        @click.argument("name")
        @click.option("--unlisted", is_flag=True, help="Also a package that is not listed.")
        @click.option("--yes", is_flag=True, help="Do not ask before it runs.")
        @click.option("--index", type=GIVEN, default=INDEX, help="Another list, such as your own.")
        def install(name: str, unlisted: bool, yes: bool, index: Path) -> None:
            from alignkit_publish.index import read, requirement
            from alignkit_publish.install import command, installed, shown

            wanted = requirement(read(index), name, unlisted=unlisted)
            words = command(wanted)
            say(shown(words))
            if yes or click.confirm("run it?", default=True):
                say(installed(words, wanted.name))

        return install


class Push(Params[click.Command]):
    """Upload the model of the run in RUN_DIR to REPO, USER/NAME on the Hugging Face Hub.

    A model card made from the run goes with it, its recipe and its metrics. The key comes from
    HF_TOKEN or `hf auth login`.
    """

    def build(self) -> click.Command:
        @click.command()
        @click.argument("folder", metavar="RUN_DIR", type=GIVEN)
        @click.argument("repo", metavar="REPO")
        @click.option("--private", is_flag=True, help="Make the repository private if it is new.")
        @click.option("--licence", help="Licence of the model, such as apache-2.0, on the card.")
        @click.option("--message", help="Message of the commit.")
        @click.option("--card", type=FILE, help="Only write what would go there to this folder.")
        def push(
            folder: Path,
            repo: str,
            private: bool,
            licence: str | None,
            message: str | None,
            card: Path | None,
        ) -> None:
            from alignkit_publish import push as pushing

            upload = pushing.prepared(folder, repo, licence)
            if card is not None:
                for path in upload.write(card):
                    say(path)
                return
            say(upload.send(private=private, message=message))

        return push


@hookimpl
def command() -> Iterator[Component[click.Command]]:
    """Offer ``plugins``, ``install`` and ``push``."""
    yield Component("plugins", ListKnown)
    yield Component("install", Install)
    yield Component("push", Push)
