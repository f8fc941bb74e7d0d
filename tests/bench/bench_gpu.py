"""A 1.5B model on one card: learner, memory, decoding, and a whole GRPO step.

    python tests/bench/bench_gpu.py                       # Qwen2.5-Math-1.5B's shape, CUDA
    python tests/bench/bench_gpu.py --compile --masters   # by the faster ways to learn
    python tests/bench/bench_gpu.py --device cpu --small  # the same script on small sizes

On CUDA as the recipes of ``recipes/scale`` do: weights in float32, products in bfloat16 by
autocast. Weights are random: what is measured does not depend on them. Prints a table ready for
RESULTS.md:

- learner: optimizer steps on rows of one length, 8,192 tokens a micro-batch; tokens a second,
  model FLOPs over the card's dense bf16 peak (``alignkit.engine.observing.metering``), peak memory;
- batch: one optimizer step on 256 rows of 1,024 tokens, peak memory, also with layers recomputed;
- decode: 256 responses at once, against ``model.generate`` on the same prompts; fixed lengths, so
  that both draw equally many tokens;
- step: 32 prompts x 8 responses sampled, advantages by group, one update, weights synced.

Times are medians of ``--rounds`` after one to warm up. On a CPU there is no MFU unless
``--peak-tflops`` says what the machine can do.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from time import perf_counter
from types import SimpleNamespace

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch loads its thread pool

import torch
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM
from transformers.utils import logging

from alignkit.component import make
from alignkit.engine.forward import compiling
from alignkit.engine.forward.checkpointing import keep_activations
from alignkit.engine.forward.compiling import compile_layers
from alignkit.engine.forward.recomputing import checkpoint_layers
from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.masters import keep_masters
from alignkit.engine.learning.objective import Objective
from alignkit.engine.observing.metering import Meter, peak_flops, tabled
from alignkit.engine.tokens import TrainRow
from alignkit.protocols import Sampling
from alignkit_hf.sampling.backend import HfBackend
from alignkit_losses import GrpoClip
from alignkit_normalizers import MaskedMean
from alignkit_optimizers import AdamW

PARTS = ("learner", "batch", "decode", "step")


@dataclass(frozen=True)
class Size:
    """What is measured on."""

    model: dict
    vocabulary: int
    budget: int  # tokens per micro-batch
    rows: int
    prompt: int
    response: int
    prompts: int
    group: int


LARGE = Size(
    model={
        "hidden_size": 1536,
        "num_hidden_layers": 28,
        "intermediate_size": 8960,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    vocabulary=151_936,
    budget=8192,
    rows=256,
    prompt=256,
    response=768,
    prompts=32,
    group=8,
)
SMALL = Size(
    model={
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    vocabulary=512,
    budget=512,
    rows=16,
    prompt=16,
    response=48,
    prompts=4,
    group=4,
)


class NoText:
    """A tokenizer for ids that mean nothing."""

    all_special_ids: tuple[int, ...] = ()

    def decode(self, ids, **_):
        return ""


def make_policy(
    size: Size,
    device: str,
    peak_tflops: float | None,
    *,
    masters: bool = False,
    compiled: bool = False,
) -> SimpleNamespace:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=size.vocabulary, max_position_embeddings=4096, dtype=torch.float32, **size.model
    )
    with torch.device(device):
        model = Qwen2ForCausalLM(config).float().eval()
    if masters:
        keep_masters(model)
    if compiled:
        compile_layers(model)
    halves = partial(torch.autocast, "cuda", dtype=torch.bfloat16)
    return SimpleNamespace(
        name="random",
        model=model,
        tokenizer=NoText(),
        eos_ids=frozenset(),
        pad_id=0,
        max_length=4096,
        version=0,
        autocast=nullcontext if device == "cpu" or masters else halves,
        peak_tflops=peak_tflops,
    )


OBJECTIVE = Objective.of(make(GrpoClip()), MaskedMean().build())


def make_learner(policy, size: Size) -> Learner:
    return Learner(
        policy,
        AdamW(lr=1e-6).build(),
        token_budget=size.budget,
        total_steps=10_000,
    )


def made_rows(size: Size, count: int, draw: torch.Generator) -> list[TrainRow]:
    """Return rows with prompts of their own; advantages of both signs."""

    def ids(n):
        return tuple(torch.randint(1, size.vocabulary, (n,), generator=draw).tolist())

    return [
        TrainRow(ids(size.prompt), ids(size.response), advantage=1.0 - 2 * (i % 2))
        for i in range(count)
    ]


class Bench:
    """One policy, and what is measured on it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.size = SMALL if args.small else LARGE
        self.device = torch.device(args.device)
        self.rounds = args.rounds
        how = {"masters": args.masters, "compiled": args.compile}
        self.policy = make_policy(self.size, args.device, args.peak_tflops, **how)
        if said := compiling.chosen(self.policy):
            print(f"layers: {said}")
        self.peak = peak_flops(self.policy, self.device)
        self.draw = torch.Generator().manual_seed(1)

    def clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return perf_counter()

    def timed(self, work: Callable[[], object]) -> tuple[float, float]:
        """Return median seconds of ``work`` after one to warm up, and peak memory in GiB."""
        work()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(self.rounds):
            start = self.clock()
            work()
            seconds.append(self.clock() - start)
        return median(seconds), self.peak_gib()

    def peak_gib(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    def mfu(self, meter: Meter, seconds: float) -> str:
        """Return the share of the peak; ``meter`` has counted the warm-up too."""
        flops = meter.flops / (self.rounds + 1)
        return f"{flops / seconds / self.peak:.1%}" if self.peak else "peak not known"

    def learner(self) -> None:
        size, learner = self.size, make_learner(self.policy, self.size)
        count = max(1, 8 * size.budget // (size.prompt + size.response))
        rows = made_rows(size, count, self.draw)
        with Meter().counting() as meter:
            seconds, peak = self.timed(lambda: learner.step(rows, OBJECTIVE))
        tokens = sum(row.length for row in rows)
        row("learner", f"{tokens / seconds:,.0f} tok/s", self.mfu(meter, seconds), peak)

    def batch(self) -> None:
        size = self.size
        for recompute in (False, True):
            if recompute:
                checkpoint_layers(self.policy.model)
                self.policy.model.train()
            learner = make_learner(self.policy, size)
            rows = made_rows(size, size.rows, self.draw)
            with Meter().counting() as meter:
                seconds, peak = self.timed(lambda: learner.step(rows, OBJECTIVE))  # noqa: B023
            what = f"{size.rows} x {size.prompt + size.response} tokens"
            name = f"batch, {what}{', recomputed' if recompute else ''}"
            row(name, f"{seconds:.2f} s", self.mfu(meter, seconds), peak)
        keep_activations(self.policy.model)
        self.policy.model.eval()

    def prompts(self) -> list[list[int]]:
        size = self.size
        shape = (size.prompts, size.prompt)
        return torch.randint(1, size.vocabulary, shape, generator=self.draw).tolist()

    def decode(self) -> None:
        size, tokens = self.size, min(self.size.response, 256)
        prompts, how = self.prompts(), Sampling(n=size.group, max_tokens=tokens, seed=1)
        backend = HfBackend(how, kv_cache_tokens=2**20)
        backend.start(self.policy)
        ours, peak = self.timed(lambda: backend.generate(prompts, how))
        backend.close()
        ids = torch.tensor([p for p in prompts for _ in range(size.group)], device=self.device)
        config = GenerationConfig(
            do_sample=True, top_k=0, max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=0
        )
        mask = torch.ones_like(ids)

        def generate() -> None:
            with self.policy.autocast():
                self.policy.model.generate(ids, attention_mask=mask, generation_config=config)

        theirs, _ = self.timed(generate)
        drawn = len(ids) * tokens
        row(f"decode, {len(ids)} rows", f"{drawn / ours:,.0f} tok/s", "", peak)
        row("  model.generate", f"{drawn / theirs:,.0f} tok/s", f"ratio {theirs / ours:.2f}", 0.0)

    def step(self) -> None:
        size = self.size
        how = Sampling(n=size.group, max_tokens=size.response, seed=1)
        backend, learner = HfBackend(how, kv_cache_tokens=2**20), make_learner(self.policy, size)
        backend.start(self.policy)
        prompts, shares = self.prompts(), {"rollout": [], "update": []}
        trained = 0

        def once() -> None:
            nonlocal trained
            start = self.clock()
            groups = backend.generate(prompts, replace(how, step=learner.policy.version))
            middle = self.clock()
            rows = [
                TrainRow(tuple(prompt), c.token_ids, rewarded(i, size.group))
                for prompt, group in zip(prompts, groups, strict=True)
                for i, c in enumerate(group)
            ]
            learner.step(rows, OBJECTIVE)
            backend.sync(self.policy)
            shares["rollout"].append(middle - start)
            shares["update"].append(self.clock() - middle)
            trained = sum(r.length for r in rows)

        with Meter().counting() as meter:
            seconds, peak = self.timed(once)
        update = median(shares["update"][1:])
        row("GRPO step", f"{trained / seconds:,.0f} tok/s", f"{seconds:.2f} s", peak)
        row("  rollout", f"{median(shares['rollout'][1:]):.2f} s", "", 0.0)
        row("  update", f"{update:.2f} s", self.mfu(meter, update), 0.0)


def rewarded(index: int, group: int) -> float:
    """Return the advantage of a response where the first half of its group is right."""
    return 1.0 if index < group // 2 else -1.0


def row(what: str, speed: str, more: str, gib: float) -> None:
    memory = f"{gib:.2f} GiB" if gib else ""
    print(f"| {what:<36} | {speed:>16} | {more:>16} | {memory:>10} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for a CPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak-tflops", type=float, help="10^12 FLOP/s that count as all")
    parser.add_argument("--masters", action="store_true", help="bfloat16 with float32 masters")
    parser.add_argument("--compile", action="store_true", help="compile layers and head")
    parser.add_argument("--part", choices=PARTS, action="append")
    args = parser.parse_args()
    logging.set_verbosity_error()
    if args.device != "cpu" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device; run with --device cpu --small")
    bench = Bench(args)
    name = "CPU" if bench.device.type == "cpu" else torch.cuda.get_device_name()
    weights = sum(p.numel() for p in bench.policy.model.parameters())
    peak = f"{bench.peak / 1e12:g} TFLOP/s" if bench.peak else "peak not known"
    print(f"{name} ({peak}, table: {tabled(name)}), {weights / 1e6:,.1f} M weights, torch "
          f"{torch.__version__}, medians of {args.rounds}")  # fmt: skip
    row("", "speed", "MFU", 0.0)
    for part in args.part or PARTS:
        getattr(bench, part)()
        gc.collect()
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
