"""A vLLM server that a trainer can send weights to: ``python -m alignkit_vllm.serve MODEL``.

It is vLLM's own OpenAI-compatible server, with all of its options, configured for training:
log-probs are those of the distribution sampled from, and the workers accept weights and requests
from the trainer (vLLM's development mode). It listens on 127.0.0.1 unless ``--host`` is given, and
refuses requests without its key: see :mod:`alignkit_vllm.guard`.
"""

from __future__ import annotations

import faulthandler
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import MutableMapping, Sequence

from alignkit_vllm.guard import closed
from alignkit_vllm.machine import installed

TRAINER = "ALIGNKIT_TRAINER_PID"
"""Environment variable with the id of the process that started this one; both end together."""

OPTIONS = (
    "--worker-extension-cls=alignkit_vllm.worker.Extension",
    "--logprobs-mode=processed_logprobs",
    "--generation-config=vllm",
)
ON_CPUS = {"--no-enable-chunked-prefill": ""}  # see options.py
ON_GPUS = {"--weight-transfer-config": '={"backend": "nccl"}'}  # see routes.py
ENVIRONMENT = {
    "VLLM_SERVER_DEV_MODE": "1",  # reset_prefix_cache and collective_rpc
    "VLLM_NO_USAGE_STATS": "1",
    "PYTHONFAULTHANDLER": "1",  # SIGABRT leaves every thread's stack in the log
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


def main(arguments: Sequence[str]) -> None:
    """Serve until stopped."""
    if not arguments or arguments[0].startswith("-"):
        sys.exit("usage: python -m alignkit_vllm.serve MODEL [options of vllm's server]")
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    faulthandler.enable()  # PYTHONFAULTHANDLER comes too late for this process itself
    if trainer := os.environ.get(TRAINER):
        threading.Thread(target=_end_with, args=(int(trainer),), daemon=True).start()
    sys.argv = command(arguments, os.environ)
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)


def command(arguments: Sequence[str], environ: MutableMapping[str, str]) -> list[str]:
    """Return the command line of vLLM's server for ``arguments``; puts its key into ``environ``."""
    model, *own = arguments
    given = {word.partition("=")[0] for word in own}
    found = installed()
    build = ON_CPUS if found and found.for_cpu else ON_GPUS
    more = [f"{name}{value}" for name, value in build.items() if name not in given]
    return ["vllm", f"--model={model}", *OPTIONS, *closed(own, environ), *more, *own]


def _end_with(trainer: int) -> None:
    """Kill this process and those it started as soon as ``trainer`` is no longer its parent."""
    while os.getppid() == trainer:
        time.sleep(0.5)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
