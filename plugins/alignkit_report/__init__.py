"""Commands that look at finished and running runs: one HTML page, or a summary in the terminal.

They only read run directories; nothing here imports the ML stack or another plugin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import click

from alignkit import Component, Params, hookimpl
from alignkit.commands import FILE, GIVEN
from alignkit.errors import shown
from alignkit.security.text import say


class Report(Params[click.Command]):
    """Write one HTML page about the runs in DIR: runs, sweeps, or folders that hold some."""

    def build(self) -> click.Command:
        @click.command()
        @click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=GIVEN)
        @click.option(
            "--out", type=FILE, help="The page. Default: report.html in DIR, or here for several."
        )
        @click.option("--title", help="Its title. Default: the sweep's, or the names of DIR.")
        @click.option("--table", is_flag=True, help="Also print the table of final values.")
        @click.option("--csv", is_flag=True, help="Also write all rows, and the table, beside it.")
        @click.option("--png", is_flag=True, help="Also write every chart; needs matplotlib.")
        @click.option("--write-up", is_flag=True,
                      help="Also write a Markdown page to comment, with its charts.")  # fmt: skip
        @click.option("--rollouts", is_flag=True,
                      help="Also write a page to browse all saved responses.")  # fmt: skip
        @click.option("--against", type=click.Choice(["step", "time"]), default="step",
                      help="Horizontal axis of the PNGs.  [default: step]")  # fmt: skip
        @click.option("--band", type=click.Choice(["error", "range"]), default="error",
                      help="What PNGs shade: ± 1.96 standard errors, or min to max.")  # fmt: skip
        @click.option("--compare", "reference", metavar="NAME",
                      help="Setting to compare the others with. Default: the first.")  # fmt: skip
        def report(
            folders: Sequence[Path],
            out: Path | None,
            title: str | None,
            table: bool,
            csv: bool,
            png: bool,
            write_up: bool,
            rollouts: bool,
            against: Literal["step", "time"],
            band: Literal["error", "range"],
            reference: str | None,
        ) -> None:
            from alignkit.run_data import groups
            from alignkit_report import pairs, tables, write

            found = groups.load(folders)
            if table:
                say(tables.text(found))
                if by_seed := pairs.text(found, tables.headline(found), reference):
                    say(f"\n{by_seed}")
            target = out or (folders[0] if len(folders) == 1 else Path()) / "report.html"
            heading = title or write.title(folders)
            how: dict[str, Any] = {"against": against, "band": band, "reference": reference}
            how |= {"with_write_up": write_up, "with_rollouts": rollouts}
            made = write.files(found, target, heading, with_csv=csv, with_png=png, **how)
            for path in made:
                say(f"{'report:' if table else 'wrote'} {shown(path)}")

        return report


class Show(Params[click.Command]):
    """Summarise the run in RUN_DIR: plan, curves, best step, right and wrong answers.

    With any of the options below --brief: its responses of one step instead.
    """

    def build(self) -> click.Command:
        @click.command()
        @click.argument("folder", metavar="RUN_DIR", type=GIVEN)
        @click.option("--brief", is_flag=True, help="Only how it ended, as run and resume do.")
        @click.option("--category", type=click.Choice(["correct", "format_only", "neither"]),
                      help="Only responses of this category.")  # fmt: skip
        @click.option("--n", type=click.IntRange(1), help="So many responses.  [default: 10]")
        @click.option("--step", type=int, help="Default: the last one whose responses were kept.")
        @click.option("--of", "kind", type=click.Choice(["eval", "rollouts"]),
                      help="Held-out or training. Default: held-out, if kept.")  # fmt: skip
        @click.option("--longer", type=int, help="Of so many tokens or more.")
        @click.option("--shorter", type=int, help="Of so many tokens or fewer.")
        @click.option("--text", help="With this text in question or response.")
        def show(folder: Path, brief: bool, n: int | None, **wanted: Any) -> None:
            from alignkit_report import responses, story

            given = {name: value for name, value in wanted.items() if value is not None}
            if not given and n is None:
                say(story.of(folder, briefly=brief))
            else:
                story.require_run(folder)
                say(responses.listing(folder, responses.Wanted(**given), n or 10))

        return show


class Export(Params[click.Command]):
    """Write the held-out responses of the run in RUN_DIR for other programs.

    As alpaca_eval: the JSON array that its --model_outputs takes. As jsonl: an object per line.
    """

    def build(self) -> click.Command:
        @click.command()
        @click.argument("folder", metavar="RUN_DIR", type=GIVEN)
        @click.option("--as", "form", type=click.Choice(["alpaca_eval", "jsonl"]), required=True,
                      help="In which form.")  # fmt: skip
        @click.option("--out", type=FILE, required=True, help="The file to write.")
        @click.option("--set", "name", default="", help="Which evaluation set. Default: [data].")
        @click.option("--step", type=int, help="Default: the last step evaluated.")
        @click.option("--generator", help="Name of the model. Default: that of RUN_DIR.")
        @click.option("--question", default="question", help="Key of the question, in jsonl.")
        @click.option("--response", default="response", help="Key of the response, in jsonl.")
        def export(
            folder: Path,
            form: str,
            out: Path,
            name: str,
            step: int | None,
            generator: str | None,
            question: str,
            response: str,
        ) -> None:
            from alignkit_report import export

            rows = export.responses(folder, name, step)
            if form == "alpaca_eval":
                text = export.alpaca_eval(rows, generator or folder.resolve().name)
            else:
                text = export.json_lines(rows, question, response)
            export.write(out, text)
            say(f"wrote {shown(out)}: {len(rows)} responses")

        return export


class Leaderboard(Params[click.Command]):
    """Show the leaderboard that alpaca_eval wrote to FILE, leaderboard.csv, the best first."""

    def build(self) -> click.Command:
        @click.command()
        @click.argument("file", metavar="FILE", type=GIVEN)
        def leaderboard(file: Path) -> None:
            from alignkit_report import export

            say(export.leaderboard(file))

        return leaderboard


@hookimpl
def command() -> Iterator[Component[click.Command]]:
    """Offer ``report``, ``show``, ``export`` and ``leaderboard``."""
    yield Component("report", Report)
    yield Component("show", Show)
    yield Component("export", Export)
    yield Component("leaderboard", Leaderboard)
