"""What a worker of either library does: wait for its turn, time a round, report it."""

from __future__ import annotations

import json
import os
import resource
import sys
from time import perf_counter, process_time

import torch
from cases import STEP, Case


def read_job(argv: list[str]) -> tuple[Case, str, dict]:
    """Return case, model folder and options from the command line."""
    case, folder, options = json.loads(argv[1]), argv[2], json.loads(argv[3])
    case["prompt_tokens"] = tuple(case["prompt_tokens"])
    torch.set_num_threads(options["threads"])
    return Case(**case), folder, options


class Rounds:
    """Rounds in turns with another process: ``begin`` waits for a line on standard input."""

    def __init__(self, options: dict) -> None:
        self.device = options["device"]
        self.idle_mib: float | None = None

    def begin(self) -> None:
        if self.idle_mib is None:
            self.idle_mib = peak_mib()
        print(f"{STEP}ready", flush=True)
        if sys.stdin.readline().strip() != "go":
            os._exit(0)  # the comparison is over; TRL has no other way to be stopped here
        self.start = self.clocks()

    def end(self, work: dict[str, float]) -> None:
        wall, cpu = (now - then for now, then in zip(self.clocks(), self.start, strict=True))
        report = {"wall": wall, "cpu": cpu, "peak_mib": peak_mib(), "idle_mib": self.idle_mib}
        if self.device != "cpu":
            report["gpu_mib"] = torch.cuda.max_memory_allocated() / 2**20
        print(STEP + json.dumps({**report, **work}), flush=True)

    def clocks(self) -> tuple[float, float]:
        if self.device != "cpu":
            torch.cuda.synchronize()
        return perf_counter(), process_time()


def peak_mib() -> float:
    """Return the most memory this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
