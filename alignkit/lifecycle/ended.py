"""How a process ends that is one of several. Loaded for these only."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable

from alignkit.lifecycle import startup


def ended(command: Callable[[], None]) -> None:
    """Run ``command``, which ends by SystemExit, and end the process with its status.

    Then only what is registered for the end is run, and not the interpreter's own end: that waits
    for threads of gloo, which wait for the interpreter to free tensors, and a thread that comes
    back from gloo meanwhile ends the process by SIGABRT.
    """
    try:
        command()
    except SystemExit as stop:
        if not isinstance(stop.code, int | None):
            raise
        startup.finish()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(stop.code or 0)
