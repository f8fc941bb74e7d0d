"""A process that has imported everything and forks the ranks of runs; started by test_kills.

Reads a JSON job per line: the words of a command, its number of ranks, the log, and which of them
are killed so many seconds after a file exists. Answers with a JSON line: exit statuses, and the
seconds from that file, or the kill, to the end. As torchrun does, it sends SIGTERM to ranks that
go on for too long after another has ended by a signal.
"""

import json
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
        command_line(job["words"])
    return pid


def strike(pids, victims):
    for rank in victims:
        with suppress(ProcessLookupError):
            os.kill(pids[rank], signal.SIGKILL)


def do(job):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pids = [start(job, rank, port) for rank in range(job["ranks"])]
    codes, began, struck, told = {}, None, None, False
    while len(codes) < len(pids):
        for rank, pid in enumerate(pids):
            if rank not in codes:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    codes[rank] = os.waitstatus_to_exitcode(status)
        now = time.monotonic()
        if began is None and os.path.exists(job["since"]):
            began = now
        due = began is not None and "after" in job and now - began >= job["after"]
        if due and struck is None:
            struck = now
            strike(pids, [rank for rank in job["victims"] if rank not in codes])
        if struck is not None and now - struck > PATIENCE and not told:
            told = True
            for rank in set(range(len(pids))) - codes.keys():
                os.kill(pids[rank], signal.SIGTERM)
        time.sleep(0.002)
    since = struck if struck is not None else began
    seconds = time.monotonic() - since if since is not None else 0.0
    return {"codes": [codes[rank] for rank in sorted(codes)], "seconds": seconds, "told": told}


print(json.dumps({}), flush=True)
for line in sys.stdin:
    print(json.dumps(do(json.loads(line))), flush=True)
