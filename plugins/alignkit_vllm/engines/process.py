"""The server as a child process, which has a log and is ended together with its own children."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from alignkit_vllm.serve import TRAINER

LOG_LINES = 20

TORCHRUN = (
    "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK",
    "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE",
)  # fmt: skip
"""Environment variables of torchrun for the trainer's ranks, which an engine must not see."""


class Child:
    """A server in a process group of its own."""

    def __init__(self, arguments: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        """Start ``python -m alignkit_vllm.serve`` with ``arguments``; it appends to ``log``."""
        self.log = log
        command = [sys.executable, "-m", "alignkit_vllm.serve", *arguments]
        with log.open("ab") as file:
            self.process = subprocess.Popen(  # nosec B603 # a list of words, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**without_ranks(os.environ), **env, TRAINER: str(os.getpid())},
            )
        atexit.register(self.kill)

    @property
    def alive(self) -> bool:
        """Whether the server's main process runs."""
        return self.process.poll() is None

    def log_end(self) -> str:
        """Return the last lines of the log."""
        return "\n".join(f"  | {line}" for line in self.log_text().splitlines()[-LOG_LINES:])

    def log_text(self) -> str:
        """Return the log, at most its last megabyte."""
        return self.log.read_bytes()[-(2**20) :].decode("utf-8", "replace")

    def dump_stacks(self) -> None:
        """End every process of the server; each writes its threads' stacks to the log first."""
        self._signal(signal.SIGABRT)
        self._signal(signal.SIGCONT)  # a process that is stopped would not see it
        time.sleep(1)

    def stop(self, patience: float = 10.0) -> None:
        """End the server: by a request, and after ``patience`` seconds by force."""
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        self.kill()

    def kill(self) -> None:
        """End the server and everything in its process group at once."""
        self._signal(signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        atexit.unregister(self.kill)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def without_ranks(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the variables of torchrun.

    >>> without_ranks({"RANK": "1", "TORCHELASTIC_RUN_ID": "none", "HOME": "/root"})
    {'HOME': '/root'}
    """
    own = {name for name in environ if name in TORCHRUN or name.startswith("TORCHELASTIC_")}
    return {name: value for name, value in environ.items() if name not in own}


def arguments(options: Mapping[str, Any]) -> list[str]:
    """Return vLLM's engine ``options`` as flags of its server.

    >>> arguments({"max_model_len": None, "enforce_eager": True, "seed": 0})
    ['--enforce-eager', '--seed=0', '--uvicorn-log-level=warning']
    """
    flags = [_flag(name.replace("_", "-"), v) for name, v in options.items() if v is not None]
    return [*flags, "--uvicorn-log-level=warning"]


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name}={json.dumps(value) if isinstance(value, dict) else value}"


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port that is free now on an address of this machine."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
    return port
