"""What other programs of the machine tell, such as git and nvidia-smi; they may be missing."""

from __future__ import annotations

import subprocess

PATIENCE = 20
"""Seconds that a program may take."""


def output(*command: str) -> str:
    """Return what a command prints; "" if it is not installed, fails, or takes too long."""
    try:
        done = subprocess.run(  # nosec B603 # a list of words, no shell
            command, capture_output=True, text=True, timeout=PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
