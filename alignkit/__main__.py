"""The ``alignkit`` command, also as ``python -m alignkit``."""

import sys


def main() -> None:
    """Run the command; from here on signals end it properly, also while it is imported."""
    if sys.platform == "win32":
        sys.exit("alignkit runs on Linux and macOS; on Windows install it in WSL")
    from alignkit.lifecycle import startup

    startup.guard()
    from alignkit.cli import main as command
    from alignkit.lifecycle import ranks

    if sys.argv[1:2] not in (["run"], ["resume"]):  # others write before they listen themselves
        startup.release()
    if ranks.size() > 1:
        from alignkit.lifecycle.ended import ended

        ended(command)
    try:
        command()
    finally:
        startup.finish()


if __name__ == "__main__":
    main()
