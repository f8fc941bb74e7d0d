"""Estimate a recipe's memory and time from its numbers and the model's ``config.json``.

Memory is a sum of parts, each by a formula; bytes, b of them per number:

- weights and gradients, N b each; N parameters (with low-rank adapters, gradients and the
  optimizer's state are theirs alone)
- AdamW's two running means, 2 N b; 2 N where they are kept in 8 bits, none on the device where
  they are offloaded
- a reference policy, N b more
- activations kept for the backward pass, per token of a micro-batch and layer:
  8 h + 3 k + 4 m numbers; h hidden size, k key-value heads times head size, m inner size of a gated
  MLP. With checkpointing h per layer, and all of it for one layer at a time
- the key-value cache, 2 k b per token and layer, for the responses that run at once
- what Python, torch and transformers take themselves

Work is counted in floating-point operations: 2 N to compute a token forwards, 4 N backwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from alignkit.errors import AlignkitError, shown
from alignkit.lifecycle.cpus import usable_cpus
from alignkit.model_shape import ModelShape, parameters_by_name, shape_at
from alignkit.run_data.runs import RunData, duration

Plan = Mapping[str, Any]
"""A resolved recipe as nested tables."""
PHASES = ("rollout", "reward", "update", "sync")
CORE = 9e9
"""Operations a second on one CPU core, seen on the embedded default (AVX-512, float32)."""
PROCESS = 0.4e9
"""Bytes of a process that has imported torch and transformers, on a CPU."""
BYTES = {"float32": 4, "bfloat16": 2}
STATE = {"8bit": 2.0, "offload": 0.0}
"""Bytes of optimizer state per parameter on the device, where not two numbers of the weights'."""


@dataclass(frozen=True)
class Estimate:
    """What a recipe will take, as far as it can be told before it runs."""

    parameters: int
    memory: Mapping[str, float]
    """Bytes at most, by what they are for."""

    @property
    def total(self) -> float:
        """Bytes in all."""
        return sum(self.memory.values())


def estimate(plan: Plan) -> Estimate | None:
    """Return the estimate of a resolved recipe; None where its policy's sizes are not known."""
    policy = plan.get("policy", {})
    path, number = str(policy.get("path", "")), BYTES.get(policy.get("dtype", ""))
    shape = shape_at(path)
    count = shape.parameters if shape else parameters_by_name(path)
    if not count or not number:
        return None
    lora = policy.get("lora")
    if lora and shape is None:
        return None
    adapter = shape.adapter(lora["rank"]) if lora and shape else None
    memory = dict(_weights(plan, count, number, adapter))
    if shape:
        memory |= dict(_buffers(plan, shape, number))
    return Estimate(count, memory | {"Python and libraries": PROCESS})


def _weights(
    plan: Plan, count: int, number: int, adapter: int | None
) -> Iterator[tuple[str, float]]:
    """Yield what grows with the parameters; an ``adapter`` trains in float32, the rest not."""
    yield "weights", count * number
    if "optimizer" in plan:
        trained, wide = (count, number) if adapter is None else (adapter, 4)
        kept = plan["optimizer"].get("implementation", "")
        yield "gradients", trained * wide
        yield "optimizer state", trained * STATE.get(kept, 2.0 * wide)
    if "reference" in plan and (adapter is None or "policy" in plan["reference"]):
        yield "reference policy", count * number


def _buffers(plan: Plan, shape: ModelShape, number: int) -> Iterator[tuple[str, float]]:
    policy, rollout = plan["policy"], plan.get("rollout", {})
    if "optimizer" in plan and "token_budget" in plan:
        half = number == 2 or policy.get("autocast", "none") != "none"
        # Measured: norms and residuals stay wide where matrix products are in bfloat16.
        kept = {(4, False): 4.0, (4, True): 2.9, (2, True): 2.3}[number, half]
        again = bool(policy.get("gradient_checkpointing"))
        yield "activations", plan["token_budget"] * shape.activations(kept, checkpointing=again)
    if _samples_here(plan):
        batches = (plan.get("rollout_batch_size", 0), plan.get("eval", {}).get("n", 0))
        sampled = max(*batches, plan.get("n", 0)) * rollout.get("max_tokens", 0)
        tokens = min(rollout["kv_cache_tokens"], sampled or float("inf"))
        yield "key-value cache", shape.cache(number) * tokens


def work(plan: Plan, count: int, length: float) -> float | None:
    """Return the floating-point operations of all steps; None where their number is not known.

    Each response of ``length`` tokens is sampled and scored once and learnt from once an epoch.
    Prompts and evaluations are not counted.
    """
    responses, steps = plan.get("rollout_batch_size"), plan.get("n_steps")
    if not (responses and steps and "optimizer" in plan):
        return None
    again = 2 if plan["policy"].get("gradient_checkpointing") else 0
    passes = 2 + 2 + (6 + again) * plan.get("epochs_per_rollout_batch", 1)
    return float(count * passes * length * responses * steps)


def rate(run: RunData) -> tuple[float, float]:
    """Return what a run got done, in operations a second, and its mean tokens a response.

    Raises AlignkitError for a run that did not log what that takes.
    """
    lengths = [value for _, value in run.series("train/response_length")]  # one a step
    spent = sum(v for name in PHASES for _, v in run.series(f"time/{name}"))
    found = estimate(run.plan)
    done = found and lengths and work(run.plan, found.parameters, fmean(lengths))
    if not (done and spent):
        raise AlignkitError(
            f"{shown(run.path)} cannot tell how long a run takes: it logged no response lengths "
            "or times, or its policy is gone; give a run of grpo or expert_iteration"
        )
    return done * len(lengths) / run.plan["n_steps"] / spent, fmean(lengths)


def text(plan: Plan, like: RunData | None = None) -> list[str]:
    """Return lines on memory and time; ``like`` is a run that says how fast this machine is."""
    found = estimate(plan)
    if found is None:
        return ["not known: the policy is in no folder yet, or not of a kind that is understood"]
    lines = [f"parameters: {found.parameters:,}", f"memory, at most: {size(found.total)}"]
    lines += [f"    {size(value)} {name}" for name, value in found.memory.items()]
    if "rollout" in plan and not _samples_here(plan):
        lines.append("    and what the rollout engine takes")
    return [*lines, f"time: {_time(plan, found.parameters, like)}"]


def _time(plan: Plan, count: int, like: RunData | None) -> str:
    speed, length = rate(like) if like else (None, plan.get("rollout", {}).get("max_tokens", 0))
    amount = work(plan, count, length)
    if not amount:
        return "not known: it depends on the number and length of the rows"
    if like and speed:
        where = f"at the speed and response length of {shown(like.path)}"
        return f"{duration(amount / speed)} {where}, without evaluations"
    if plan["policy"].get("device", "auto").startswith("cuda") or not _samples_here(plan):
        return f"{amount:.2g} floating-point operations at most; give a run on this GPU with --like"
    cores = usable_cpus()
    guess = duration(amount / (CORE * cores))
    return f"{guess} at most, a rough guess for {cores} CPU cores; --like RUN_DIR knows better"


def _samples_here(plan: Plan) -> bool:
    """Whether the policy's own process samples, with a cache of known size."""
    return "kv_cache_tokens" in plan.get("rollout", {})


def size(number: float) -> str:
    """Return bytes as text.

    >>> size(451840 * 4), size(24.06e9)
    ('1.8 MB', '24.1 GB')
    """
    unit, scale = ("GB", 1e9) if number >= 1e9 else ("MB", 1e6)
    return f"{number / scale:.1f} {unit}"
