"""The grading process: reads pairs from standard input, writes verdicts to standard output."""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import traceback
from typing import IO, Any

OUT_OF_MEMORY = "out of memory"
"""Why a verdict was given up that is a worker's last."""


def main(memory_mb: int) -> None:
    """Serve until standard input closes or the parent dies; see :mod:`alignkit_rewards.pool`."""
    parent = os.getppid()
    out = os.fdopen(os.dup(1), "w", buffering=1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)  # whatever a library prints must not look like a verdict
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    try:
        importlib.import_module("alignkit_rewards.answers")
        _limit_memory(memory_mb)
    except Exception:
        out.write(json.dumps(traceback.format_exc(limit=3)) + "\n")
        raise
    out.write('"ready"\n')
    while (line := _next_line(parent)) and _serve(json.loads(line), out):
        pass


def _serve(message: Any, out: IO[str]) -> bool:
    """Answer one message; return whether all of it was answered, and more can be."""
    from alignkit_rewards.answers import Conventions, Verdict, judge

    rules = Conventions(**message["rules"])
    for golds, answer in message["pairs"]:
        signal.setitimer(signal.ITIMER_PROF, message["limit"])
        try:
            verdict = judge(golds, answer, rules)
        except MemoryError:  # what is left of it is not enough for the next
            verdict = Verdict(False, OUT_OF_MEMORY)
        signal.setitimer(signal.ITIMER_PROF, 0)
        out.write(json.dumps([verdict.correct, verdict.why]) + "\n")
        if verdict.why == OUT_OF_MEMORY:
            return False
    return True


def _next_line(parent: int) -> str:
    """Wait for a message; ``""`` when the parent is gone, even if a pipe end leaked elsewhere."""
    while not select.select([0], [], [], 2.0)[0]:
        if os.getppid() != parent:
            return ""
    return sys.stdin.readline()


def _limit_memory(megabytes: int) -> None:
    import resource

    limit = megabytes << 20
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
