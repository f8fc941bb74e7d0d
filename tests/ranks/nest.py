"""A process that has imported everything and forks the ranks of runs, for tests of how they end.

Reads a JSON job per line: the words of a command, its number of ranks, the log, and which of them
get a signal so many seconds after a file exists; ``more`` has further words for each rank. Answers
with a JSON line: exit statuses, the seconds from that file, or the signal, to each end, and those
from each rank's last words to the end of all. As torchrun does, it sends SIGTERM to ranks that go
on for too long after that signal. After ``limit`` seconds the job is killed.
"""

import json
import math
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch
import torch.distributed.fsdp
import torch.distributed.tensor  # noqa: F401
import transformers  # noqa: F401

import alignkit_optimizers.adamw  # noqa: F401
from alignkit import plugins

sys.path.append(str(Path(__file__).parents[1] / "fixtures"))
from forked import command_line

PATIENCE = 30.0
"""Seconds in which the others are to end by themselves."""
REGISTRY = plugins.load()
plugins.load = lambda disable=(): REGISTRY


def start(job, rank, port):
    pid = os.fork()
    if pid == 0:
        log = os.open(f"{job['log']}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(job["cwd"])
        size = str(job["ranks"])
        os.environ.update(
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=size, LOCAL_WORLD_SIZE=size,
            RANK=str(rank), LOCAL_RANK=str(rank),
        )  # fmt: skip
        command_line([*job["words"], *job.get("more", {}).get(str(rank), [])])
    return pid


def strike(pids, victims, number=signal.SIGKILL):
    for rank in victims:
        with suppress(ProcessLookupError):
            os.kill(pids[rank], number)


def do(job):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pids = [start(job, rank, port) for rank in range(job["ranks"])]
    codes, ends, began, struck, told = {}, {}, None, None, False
    end = time.monotonic() + job.get("limit", math.inf)
    while len(codes) < len(pids):
        for rank, pid in enumerate(pids):
            if rank not in codes:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    codes[rank] = os.waitstatus_to_exitcode(status)
                    ends[rank] = time.monotonic()
        now = time.monotonic()
        if began is None and os.path.exists(job["since"]):
            began = now
        due = began is not None and "after" in job and now - began >= job["after"]
        if due and struck is None:
            struck = now
            victims = [rank for rank in job["victims"] if rank not in codes]
            strike(pids, victims, job.get("signal", signal.SIGKILL))
        if struck is not None and now - struck > job.get("patience", PATIENCE) and not told:
            told = True
            for rank in set(range(len(pids))) - codes.keys():
                os.kill(pids[rank], signal.SIGTERM)
        left = set(range(len(pids))) - codes.keys()
        if now > end or (struck is not None and left <= set(job["victims"])):  # stopped ones
            strike(pids, left)
        time.sleep(0.002)
    since = struck if struck is not None else began
    took = [ends[rank] - since if since is not None else 0.0 for rank in sorted(codes)]
    found = {"codes": [codes[rank] for rank in sorted(codes)], "took": took, "told": told}
    told_at = [os.stat(f"{job['log']}.{rank}").st_mtime for rank in range(len(pids))]
    return found | {"seconds": max(took), "since_said": [time.time() - at for at in told_at]}


print(json.dumps({}), flush=True)
for line in sys.stdin:
    print(json.dumps(do(json.loads(line))), flush=True)
