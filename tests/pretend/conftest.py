"""What runs tests on the pretended device shares: its compiled guard, and a process to run in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
collect_ignore = ["pretended"]
if "pretended.plugin" not in sys.modules:
    collect_ignore.append("device")  # tests for that process alone


@pytest.fixture(scope="session")
def on_pretended_device(request):
    """``run(*arguments)`` runs pytest on the device in a process that has not loaded torch."""
    sys.path.insert(0, str(HERE))
    from pretended import guard

    if lacking := guard.lacking():
        pytest.skip(lacking)
    library = guard.compiled(Path(request.config.cache.mkdir("pretended")))
    environment = {**os.environ, "PYTHONPATH": str(HERE), guard.LIBRARY: str(library)}

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "pretended.plugin", "-q", *arguments],
            cwd=HERE.parents[1],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run
