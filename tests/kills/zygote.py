"""A process that has imported everything and forks runs that are killed; started by conftest.

Reads a JSON job per line, answers with a JSON line. A job runs an alignkit command in a child of
its own process group and kills it with SIGKILL, sends another signal, or does it other harm, at a
moment of its CPU time (so that a busy machine does not shift it), as soon as a path exists, or at
the n-th step of a write to the disk.
"""

import gc
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import torch  # noqa: F401  before any fork
import transformers  # noqa: F401

import alignkit_optimizers.adamw  # noqa: F401
from alignkit import plugins
from alignkit.lifecycle import checkpoints
from alignkit_sweep import launchers, runner
from alignkit_testing.standins import tiny_model, tiny_rows, with_stand_ins

sys.path.append(str(Path(__file__).parents[1] / "fixtures"))
from forked import command_line

REGISTRY = with_stand_ins(plugins.load())
plugins.load = lambda disable=(): REGISTRY
runner.POLL = 0.01


class Disk:
    """Counts the steps of every write; dies at the one it was told to."""

    def __init__(self, fatal):
        self.fatal, self.count = fatal, 0
        for module, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (shutil, "rmtree")):
            self.watch(module, name)
        write = checkpoints._write

        def halfway(path, content):
            """Write a file of a checkpoint; in between half of it is there."""

            def in_two(target):
                content(target)
                whole = target.read_bytes()
                target.write_bytes(whole[: len(whole) // 2])
                self.step()
                target.write_bytes(whole)

            return write(path, in_two)

        checkpoints._write = halfway

    def watch(self, module, name):
        real = getattr(module, name)

        def watched(*args, **keys):
            self.step()
            done = real(*args, **keys)
            self.step()
            return done

        setattr(module, name, watched)

    def step(self):
        self.count += 1
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)


class Forked:
    """Stands in for subprocess.Popen in a sweep: a fork is 8 seconds faster than a Python."""

    def __init__(self, command, stdout, **_):
        self.returncode = None
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(stdout.fileno(), 1)
            os.dup2(stdout.fileno(), 2)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            command_line(command[3:])

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout=None):
        end = time.monotonic() + (timeout or 600)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("fork", timeout)
            time.sleep(0.002)
        return self.returncode

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)


def seconds_of(pid):
    """Return the CPU seconds a process and its children have used, 0 once it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ended = sum(map(int, stat[13:15])) / os.sysconf("SC_CLK_TCK")
        own = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):
        return 0.0
    return own + ended + sum(seconds_of(int(c)) for c in children)


def tell(disk, path, leave, status):
    path.write_text(str(disk.count))
    leave(status)


def prepare(job):
    """Limit, in a fork, the size of files, and let the clock jump once a path exists."""
    if size := job.get("file_bytes"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    if jumped := job.get("clock"):
        real = time.time
        time.time = lambda: real() + (job["jump"] if os.path.exists(jumped) else 0)
    if job.get("pipe"):
        reading, writing = os.pipe()
        os.dup2(writing, 1)
        os.close(writing)
        return reading
    return None


def start(job):
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & ignores it
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(job["cwd"])
        launchers.subprocess = SimpleNamespace(**(vars(subprocess) | {"Popen": Forked}))
        reading = prepare(job)
        if reading is not None:  # nobody reads any more once the path exists
            threading.Thread(target=lose, args=(reading, job["pipe"]), daemon=True).start()
        disk = Disk(job.get("write", 0)) if "write" in job else None
        if disk and not disk.fatal:
            real = os._exit
            os._exit = lambda status: (
                Path(job["log"] + ".n").write_text(str(disk.count)),
                real(status),
            )
        command_line(job["words"])
    return pid


def lose(reading, path):
    """Read a pipe until ``path`` exists, then close it."""
    os.set_blocking(reading, False)
    while not os.path.exists(path):
        with suppress(BlockingIOError):
            os.read(reading, 65536)
        time.sleep(0.005)
    os.close(reading)


def strike(job, pid):
    """Do what a job's bad day consists of: signals with pauses, or a command of the shell."""
    for number, pause in job.get("signals", ()):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        time.sleep(pause)
    if "shell" in job:
        subprocess.run(job["shell"], shell=True, cwd=job["cwd"], check=False, capture_output=True)


def do(job):
    pid, at = start(job), job.get("cpu")
    used, sent = 0.0, False
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            break
        now = seconds_of(pid)
        used = max(used, now)
        due = at is not None and used >= at
        if (due or os.path.exists(job.get("when", ""))) and not sent:
            sent = True
            if job.get("bad_day"):
                strike(job, pid)
                continue
            number = job.get("signal", signal.SIGKILL)
            if job.get("group", True) and number == signal.SIGKILL:
                os.killpg(pid, number)
            else:
                os.kill(pid, number)
        time.sleep(0.001)
    code = os.waitstatus_to_exitcode(status)
    if job.get("write") and code == -signal.SIGKILL:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # the children of a sweep
    return {"code": code, "cpu": used}


def main():
    ready = {"model": str(tiny_model()), "rows": str(tiny_rows())}
    gc.collect()
    gc.freeze()
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        print(json.dumps(do(json.loads(line))), flush=True)


main()
