"""Seconds of a step on two processes against one, with one thread each.

    python tests/bench/bench_ranks.py [--recipe recipes/sft.toml] [--ranks 2] [--steps 8]
        [--turns 2] [-s policy.parallel=shard]

Runs the recipe on the embedded model and data, in turns of one process and of several, each with
one thread, without evaluation. The median step counts, that of the fastest turn; the ratio can be
at most the number of ranks, and only where there are as many idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("time/rollout", "time/reward", "time/update", "time/sync")


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def carried_out(words: list[str], ranks: int) -> None:
    """Run alignkit with these words as ``ranks`` processes of one thread."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(ranks)}
    threads = {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": str(ranks)}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "alignkit", *words],
            env={**os.environ, **place, **threads, "RANK": str(r), "LOCAL_RANK": str(r)},
            stdout=subprocess.DEVNULL,
        )
        for r in range(ranks)
    ]
    if any([process.wait() for process in running]):
        raise SystemExit(f"failed: alignkit {' '.join(words)}")


def seconds(recipe: str, overrides: list[str], ranks: int, steps: int) -> dict[str, float]:
    """Return the median seconds of a step's parts; the first step, which warms up, is left out."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "run"
        keys = [f"n_steps={steps}", "eval.every=1000", "eval.n=2", *overrides]
        words = ["run", recipe, "--out", str(out), *(w for k in keys for w in ("-s", k))]
        carried_out(words, ranks)
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steady = [row for row in rows if row["step"] > 1]
    return {part: median(row.get(part, 0.0) for row in steady) for part in PARTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", default=str(ROOT / "recipes" / "grpo.toml"))
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("-s", dest="overrides", action="append", default=[])
    args = parser.parse_args()
    best: dict[int, dict[str, float]] = {}
    for _ in range(args.turns):
        for ranks in (1, args.ranks):
            found = seconds(args.recipe, args.overrides, ranks, args.steps)
            if ranks not in best or sum(found.values()) < sum(best[ranks].values()):
                best[ranks] = found
    for part in PARTS:
        one, more = (best[ranks][part] for ranks in (1, args.ranks))
        print(f"{part:14} {one:7.3f} s alone  {more:7.3f} s on {args.ranks}")
    one, more = (sum(best[ranks].values()) for ranks in (1, args.ranks))
    print(f"ratio {one / more:.2f}, at most {args.ranks}; {os.cpu_count()} cores here")


if __name__ == "__main__":
    main()
