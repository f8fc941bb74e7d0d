"""The command that talks to a policy in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path

import click

from alignkit import Params
from alignkit.commands import FILE, plugin_option
from alignkit.plugins import Registry
from alignkit.security.text import say


class Chat(Params[click.Command]):
    """Talk to a policy: MODEL is a run directory, a model's folder, or a name on the Hub.

    Lines are read until /exit or the end of input; /new begins another conversation. Of a run it is
    the model that the run ended with, asked as its recipe asks. What the model writes is shown with
    its escape sequences spelt out. Transcripts have the form that [data] use = "chat" reads.
    """

    def build(self) -> click.Command:
        @click.command()
        @click.argument("model", metavar="MODEL")
        @click.option(
            "-s", "overrides", multiple=True, metavar="KEY=VALUE",
            help="Set a key of policy, prompt or rollout, such as rollout.temperature=0.7.",
        )  # fmt: skip
        @click.option("--system", help="A system message; the model needs a chat template.")
        @click.option("--seed", type=click.IntRange(min=0), default=0, help="Fixes the draws.")
        @click.option(
            "--out", type=FILE,
            help="File for the transcript. Default: a new one in MODEL/chats of a run, or chats.",
        )  # fmt: skip
        @plugin_option
        def chat(
            model: str,
            overrides: Sequence[str],
            system: str | None,
            seed: int,
            out: Path | None,
            registry: Registry,
        ) -> None:
            import json

            from alignkit_algorithms import conversation

            transcript = conversation.transcript_for(model, out)
            if system is not None:
                overrides = ["prompt.use=chat", f"prompt.system={json.dumps(system)}", *overrides]
            parts = conversation.parts_of(model, registry, overrides)
            talk = conversation.Conversation(parts, seed, transcript, {"model": parts.policy.name})
            conversation.talk(talk, _typed, say)

        return chat


def _typed() -> Iterator[str]:
    """Yield the lines that are typed, until the end of input or Ctrl-C.

    A byte that is no UTF-8 is a surrogate in them.
    """
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            return
