"""Decoding with the hf rollout backend beside transformers' ``model.generate``.

    python tests/bench/bench_decode.py [--shape small|embedded] [--threads 2] [--rounds 5]

On a busy machine ``--threads 1 --clock cpu`` counts processor time, which others hardly disturb.

Both sample at temperature 1 from the same randomly initialised Qwen2 in float32, on the same
prompts, in turns in one process; medians and the ratio of tokens per second are printed. Lengths
vary because a share of the vocabulary ends a response: the number of tokens is then geometric,
cut at ``max_tokens``. Both get the same list of end ids. ``generate`` is given what serves it
best: left-padded prompts sorted by length and several batch sizes, of which its best counts.
Its sampling draws differ, so tokens generated agree on average only; they are printed.
"""

from __future__ import annotations

import argparse
import os
from contextlib import nullcontext
from statistics import median
from time import perf_counter, process_time
from types import SimpleNamespace

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # both are read when torch loads
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM
from transformers.utils import logging

from alignkit.protocols import Sampling
from alignkit_hf.sampling.backend import HfBackend

SHAPES = {
    "small": {"hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 1024},
    "embedded": {"hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 512},
}
VOCAB = 1024
CLOCKS = {"wall": perf_counter, "cpu": process_time}
CASES = {
    # name: prompts, prompt tokens (low, high), samples, max_tokens, ids that end a response
    "fixed 64 tokens": (8, (24, 44), 8, 64, 0),
    "lengths vary 8x": (8, (24, 44), 8, 256, 32),
    "lengths vary, mean 59": (8, (24, 44), 8, 256, 17),
    "8x, 256 rows": (32, (100, 130), 8, 256, 32),
    "long prompts, groups of 16": (4, (256, 256), 16, 64, 0),
    "one response": (1, (34, 34), 1, 64, 0),
    "one sample each, 8x": (64, (24, 192), 1, 256, 32),
}


def make_model(shape: str) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCAB,
        num_attention_heads=SHAPES[shape]["hidden_size"] // 32,
        num_key_value_heads=SHAPES[shape]["hidden_size"] // 32,
        tie_word_embeddings=False,
        max_position_embeddings=4096,
        **SHAPES[shape],
    )
    return Qwen2ForCausalLM(config).eval()


class NoText:
    """A tokenizer for ids that mean nothing."""

    all_special_ids: tuple[int, ...] = ()

    def decode(self, ids, **_):
        return ""


def make_policy(model, ends: int) -> SimpleNamespace:
    return SimpleNamespace(
        name="random",
        model=model,
        tokenizer=NoText(),
        eos_ids=frozenset(range(VOCAB - ends, VOCAB)),
        pad_id=0,
        max_length=4096,
        version=0,
        autocast=nullcontext,
    )


def ours(policy, prompts, n, max_tokens, seed):
    backend = HfBackend(Sampling(), kv_cache_tokens=2**18)
    backend.start(policy)
    how = Sampling(n=n, max_tokens=max_tokens, seed=seed)

    def once():
        return sum(len(c.token_ids) for group in backend.generate(prompts, how) for c in group)

    return once


def theirs(policy, prompts, n, max_tokens, batch):
    rows = sorted((p for p in prompts for _ in range(n)), key=len)
    ends = sorted(policy.eos_ids)
    config = GenerationConfig(
        do_sample=True,
        top_k=0,
        max_new_tokens=max_tokens,
        eos_token_id=ends or None,
        pad_token_id=0,
    )

    def once():
        total = 0
        for start in range(0, len(rows), batch):
            some = rows[start : start + batch]
            width = max(map(len, some))
            ids = torch.tensor([[0] * (width - len(r)) + list(r) for r in some])
            mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in some])
            out = policy.model.generate(ids, attention_mask=mask, generation_config=config)
            total += sum(count(row, policy.eos_ids) for row in out[:, width:].tolist())
        return total

    return once


def count(ids, ends) -> int:
    """Return the tokens up to the first end id, that one included."""
    return next((i + 1 for i, token in enumerate(ids) if token in ends), len(ids))


def timed(run, clock):
    start = clock()
    tokens = run()
    return tokens, clock() - start


def compare(model, case, rounds: int, clock) -> None:
    count, (low, high), n, max_tokens, ends = CASES[case]
    policy = make_policy(model, ends)
    draw = torch.Generator().manual_seed(1)
    lengths = torch.randint(low, high + 1, (count,), generator=draw).tolist()
    prompts = [torch.randint(1, VOCAB - 64, (k,), generator=draw).tolist() for k in lengths]
    rows = len(prompts) * n
    runs = {"alignkit": ours(policy, prompts, n, max_tokens, seed=0)}
    batches = [rows] if rows <= 64 else [rows, rows // 2, 64]
    runs |= {f"generate, batch {b}": theirs(policy, prompts, n, max_tokens, b) for b in batches}
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    tokens: dict[str, int] = {}
    for i in range(rounds + 1):
        for name, run in runs.items():
            tokens[name], seconds = timed(run, clock)
            if i:  # the first round warms up
                speeds[name].append(tokens[name] / seconds)
    medians = {name: median(values) for name, values in speeds.items()}
    best = max((name for name in medians if name != "alignkit"), key=medians.__getitem__)
    print(
        f"{case:<28} alignkit {medians['alignkit']:>8,.0f} tok/s ({tokens['alignkit']} tokens)   "
        f"{best} {medians[best]:>8,.0f} tok/s ({tokens[best]} tokens)   "
        f"ratio {medians['alignkit'] / medians[best]:.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--case", choices=CASES, action="append")
    args = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    print(f"{args.shape}, {args.threads} threads, medians of {args.rounds} rounds")
    model = make_model(args.shape)
    for case in args.case or CASES:
        compare(model, case, args.rounds, CLOCKS[args.clock])


if __name__ == "__main__":
    main()
