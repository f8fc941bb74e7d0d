"""The other ranks of a run hear of this one from the start of the command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from alignkit.lifecycle.ranks import size


def start() -> None:
    """Give the run's other ranks signs of life from now on; one process has no others."""
    if size() > 1:
        from alignkit.engine.ranks.company import company

        company()


def tell(why: str, status: int) -> None:
    """Tell ranks that wait for this one to start the run that it ends, and wait until they heard.

    They end with the same exit status. Once all have met this does nothing: what one of them raises
    in the run ends the others.
    """
    if size() > 1:
        from alignkit.engine.ranks.company import company

        company().tell(why, status)


@contextmanager
def telling() -> Iterator[None]:
    """Do as :func:`tell` for what the block raises."""
    try:
        yield
    except BaseException as error:
        tell(str(error) or type(error).__name__, getattr(error, "exit_status", 1))
        raise
