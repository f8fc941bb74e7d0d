"""One process of a run that a check has made: ``python -m alignkit_testing.rank RECIPE OUT …``.

Like ``alignkit run``, but with the stand-ins of the kit. The words after the run directory are
plugin files, and ``no:NAME`` for plugins that are left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tomli

from alignkit import plugins, recipe
from alignkit.document import Document
from alignkit.errors import AlignkitError, Said
from alignkit.execution import execute
from alignkit.following import follow
from alignkit.lifecycle import meeting
from alignkit.lifecycle.ranks import follows
from alignkit.plugin_files import with_files
from alignkit_testing.standins import with_stand_ins


def main(path: Path, out: Path, words: list[str]) -> None:
    """Carry out this process's part of the run."""
    off = [word.removeprefix("no:") for word in words if word.startswith("no:")]
    files = [Path(word) for word in words if not word.startswith("no:")]
    registry = with_stand_ins(with_files(plugins.load(off), files))
    table = tomli.loads(path.read_text(encoding="utf-8"))
    node = recipe.resolve(Document(table, {}, path), registry, "algorithm")
    if follows():
        follow(node)
    else:
        execute(node, path, out, ["conformance"])


if __name__ == "__main__":
    try:
        meeting.start()
        with meeting.telling():
            main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
    except AlignkitError as error:
        sys.exit("" if isinstance(error, Said) else str(error))
