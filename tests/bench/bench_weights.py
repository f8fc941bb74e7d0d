"""How fast a policy's weights get to vLLM engines, by every way that this machine has.

    python tests/bench/first_card/random_policy.py /tmp/policy     # 1.5B, or --tiny on a CPU
    python tests/bench/bench_weights.py /tmp/policy

Prints a row per way: seconds from the request until all engines compute with the weights (median of
``--rounds``, after the one at the start), gigabytes a second, and why that way was taken. The last
column tells it: a row that names a socket where a card's own way was meant is a fault.
"""

from __future__ import annotations

import argparse
from statistics import median
from time import perf_counter

import torch

from alignkit import AlignkitError
from alignkit_hf import HfPolicy
from alignkit_vllm import VllmRollout
from alignkit_vllm.weights import shapes

SMALL = {"max_tokens": 16, "max_model_len": 512, "max_num_seqs": 8, "kv_cache_gib": 0.0625}


def ways(cards: int) -> dict[str, dict[str, object]]:
    """Return the settings of [rollout] to measure on a machine with so many cards."""
    found: dict[str, dict[str, object]] = {
        "in this process": {"mode": "colocate", "sleep": False},
        "on the policy's card": {"mode": "server"},
        "the same, over a socket": {"mode": "server", "weights": "socket"},
    }
    if cards > 1:
        found["on a card of its own"] = {"mode": "device"}
        found["the same, over a socket "] = {"mode": "device", "weights": "socket"}
    if cards > 2:
        found[f"{cards - 1} engines"] = {"mode": "device", "engines": cards - 1}
    return found


def measure(policy: HfPolicy, settings: dict[str, object], rounds: int) -> tuple[float, str]:
    """Return median seconds of a transfer, and the way it took."""
    share = {"gpu_memory_utilization": 0.3} if torch.cuda.is_available() else {}
    backend = VllmRollout(**SMALL, **share, **settings).build()
    backend.start(policy)
    try:
        seconds = []
        for _ in range(rounds):
            policy.version += 1
            start = perf_counter()
            backend._load(policy)
            seconds.append(perf_counter() - start)
        return median(seconds), backend.computed["weights"]
    finally:
        backend.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("policy", help="folder of a model")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = "cuda:0" if cards else "cpu"
    how = {"autocast": "bfloat16"} if cards else {}
    policy = HfPolicy(path=args.policy, device=device, **how).build()
    dtype = torch.bfloat16 if cards else torch.float32
    size = sum(shape.numel() for _, _, shape in shapes(policy, dtype)) * dtype.itemsize
    print(f"{size / 1e9:.3f} GB of {str(dtype)[6:]}, {cards} cards, medians of {args.rounds}")
    failed = False
    for name, settings in ways(cards).items():
        try:
            seconds, way = measure(policy, settings, args.rounds)
        except AlignkitError as error:
            failed = True
            print(f"| {name:<24} | FAILED: {error}", flush=True)
            continue
        speed = f"{size / seconds / 1e9:.2f} GB/s"
        print(f"| {name:<24} | {seconds:8.3f} s | {speed:>12} | {way}", flush=True)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
