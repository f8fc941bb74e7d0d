"""Runs workers in turns and prints medians, ratios and whether work was equal.

TRL lives in an environment of its own:

    python -m venv trl && echo torch==2.13.0 > pins.txt
    trl/bin/pip install 'trl==1.16.*' 'transformers>=5.16.1,<5.20' -c pins.txt

Its python is given with ``--trl-python`` or TRL_PYTHON; without one only alignkit is measured.
On a busy machine ``--threads 1 --clock cpu`` counts processor time, which others hardly disturb.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO

from cases import STEP, Case, make_folder

HERE = Path(__file__).parent


def arguments(description: str, cases: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--case", choices=cases, action="append")
    parser.add_argument("--trl-python", default=os.environ.get("TRL_PYTHON"))
    parser.add_argument("--rounds", type=int, default=5, help="measured, after one to warm up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--bf16",
        choices=("autocast", "masters"),
        help="alignkit by autocast, or with bfloat16 weights and float32 masters; TRL by autocast",
    )
    parser.add_argument("--quick", action="store_true", help="two rounds, TRL's first setting only")
    args = parser.parse_args()
    if args.quick:
        args.rounds = 2
    return args


def main(doc: str, cases: Mapping[str, Case], settings: Mapping[str, dict]) -> None:
    """Compare each of the cases asked for; ``doc`` is that of the script."""
    args = arguments(doc.partition("\n")[0], list(cases))
    for name in args.case or cases:
        compare(name, cases[name], args, settings)


@dataclass
class Worker:
    """A process that does a round whenever told to."""

    name: str
    process: subprocess.Popen
    errors: IO[str]
    reports: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def start(cls, name, python, script, case: Case, folder: str, options: dict) -> Worker:
        command = [python, str(HERE / script), json.dumps(case.dict()), folder]
        environment = os.environ | {
            "OMP_NUM_THREADS": str(options["threads"]),
            "OMP_WAIT_POLICY": "passive",  # threads that spin for long collapse on a busy machine
            "GOMP_SPINCOUNT": "10000",  # yet waking a sleeping one takes as long as a small product
            "OMP_PROC_BIND": "true",  # or a thread wakes on the other's core, and stays for a while
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 (open while the worker lives)
        process = subprocess.Popen(
            [*command, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
        return cls(name, process, errors)

    def line(self) -> str:
        """Return the next report; RuntimeError with what it printed if the worker has died."""
        for line in self.process.stdout:
            if line.startswith(STEP):
                return line[len(STEP) :]
        self.errors.seek(0)
        raise RuntimeError(f"{self.name} stopped:\n{self.errors.read()[-3000:]}")

    def turn(self) -> None:
        """Do two rounds; the first brings back what caches and memory lost while others ran."""
        self.round()
        self.reports.append(self.round())

    def round(self) -> dict[str, float]:
        print("go", file=self.process.stdin, flush=True)
        report = json.loads(self.line())
        self.line()  # ready for the next
        return report

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()

    def median(self, name: str) -> float:
        return median(report[name] for report in self.reports[1:])  # the first turn warms up

    def peak(self, name: str) -> float:
        return max(report[name] for report in self.reports)


def compare(
    name: str, case: Case, args: argparse.Namespace, trl: Mapping[str, dict]
) -> dict[str, Worker]:
    """Run alignkit and TRL with each of the settings ``trl``; print and return what they did."""
    options = {
        "threads": args.threads,
        "device": args.device,
        "bf16": args.bf16,
        "total": 2 * (args.rounds + 1) + 1,
    }
    settings = dict(list(trl.items())[:1] if args.quick else trl.items()) if args.trl_python else {}
    with tempfile.TemporaryDirectory() as folder:
        make_folder(case, Path(folder))
        workers = [
            Worker.start("alignkit", sys.executable, "work_alignkit.py", case, folder, options)
        ]
        workers += [
            Worker.start(
                f"TRL, {how}", args.trl_python, "work_trl.py", case, folder, options | chosen
            )
            for how, chosen in settings.items()
        ]
        try:
            for worker in workers:
                worker.line()
            for _ in range(args.rounds + 1):
                for worker in workers:
                    worker.turn()
        finally:
            for worker in workers:
                worker.stop()
    show(name, case, workers, args)
    return {worker.name: worker for worker in workers}


def show(name: str, case: Case, workers: Sequence[Worker], args: argparse.Namespace) -> None:
    print(f"\n{name} (medians of {args.rounds} rounds, {args.threads} threads, {args.clock} time)")
    for worker in workers:
        memory = "gpu_mib" if args.device == "cuda" else "peak_mib"
        print(
            f"  {worker.name:<24} {worker.median(args.clock):7.3f} s   "
            f"{worker.median('trained_tokens') / worker.median(args.clock):8,.0f} tokens/s   "
            f"{worker.median('trained_tokens'):7,.0f} tokens   "
            f"{worker.median('optimizer_steps'):.0f} optimizer steps   "
            f"peak {worker.peak(memory):6,.0f} MiB ({worker.reports[0]['idle_mib']:,.0f} before)"
        )
    ours, *others = workers
    if not others:
        print("  no --trl-python: nothing to compare with")
        return
    check(case, ours, others)
    best = max(others, key=lambda w: speed(w, args))
    print(
        f"  alignkit / {best.name}: {speed(ours, args) / speed(best, args):.2f} times the tokens "
        f"per second, {ours.peak('peak_mib') / best.peak('peak_mib'):.2f} of its peak memory",
        flush=True,
    )


def speed(worker: Worker, args: argparse.Namespace) -> float:
    """Return trained tokens per second; equal work, so this is steps per second too."""
    return worker.median("trained_tokens") / worker.median(args.clock)


def check(case: Case, ours: Worker, others: Sequence[Worker]) -> None:
    """Refuse to compare unequal work. Sampled lengths agree on average only."""
    slack = 0.25 if case.ends else 0.0
    for other in others:
        for what in ("optimizer_steps", "trained_tokens"):
            a, b = ours.median(what), other.median(what)
            if abs(a - b) > slack * max(a, b):
                raise SystemExit(f"unequal work: {what} {a:,.0f} and, {other.name}, {b:,.0f}")
