"""The ``alignkit`` command, also as ``python -m alignkit``."""

import os
import sys

from alignkit.lifecycle import startup


def main() -> None:
    """Run the command; from here on signals end it properly, also while it is imported."""
    startup.guard()
    from alignkit.cli import main as command

    if sys.argv[1:2] not in (["run"], ["resume"]):  # others write before they listen themselves
        startup.release()
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        from alignkit.lifecycle.ended import ended

        ended(command)
    command()


if __name__ == "__main__":
    main()
