"""One architecture through every pass that alignkit makes, against one row, one call, no cache."""

from __future__ import annotations

import math
import random
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from alignkit import AlignkitError
from alignkit.engine.forward.frozen import FrozenPolicy, detached_logprobs
from alignkit.engine.forward.logprobs import response_logprobs
from alignkit.engine.tokens import TrainRow

VALUES, SLOPES = 5e-5, 1e-4
"""Nats that a log-prob may be off, and the share that a gradient may be off."""


class NoTokens:
    """Stands in for a tokenizer: what is tried out works on ids."""

    all_special_ids = ()

    def __len__(self):
        return 0

    def decode(self, ids, **_):
        return ""


@dataclass
class Verdict:
    """What became of one case."""

    decode: str = ""
    learner: str = ""
    values: float = 0.0
    """Largest difference of a log-prob, in nats."""
    slopes: float = 0.0
    """Largest difference of a gradient, as a share of its norm."""
    refused: str = ""
    wrong: str = ""
    """What is off; nothing may be."""


def write(folder: Path, config, *, seed: int = 0) -> Path:
    """Write a model of ``config`` whose biases, norms and attention matter."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    loud(model)
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def loud(model) -> None:
    """Enlarge matrices and scatter the rest: a fresh model hardly attends."""
    for name, parameter in sorted(model.named_parameters()):
        if parameter.ndim >= 2 and parameter.std() < 0.1:
            parameter.mul_(6)
        elif parameter.ndim < 2 and "A_log" not in name and "dt" not in name:
            parameter.add_(torch.randn_like(parameter) * 0.2)


def policy_of(folder: Path, **keys):
    """Return the policy of ``folder``, without a tokenizer and without an end."""
    from alignkit_hf import HfPolicy

    policy = HfPolicy(path=str(folder), device="cpu", **keys).build()
    policy.__dict__ |= {
        "tokenizer": NoTokens(),
        "eos_ids": frozenset(),
        "pad_id": 0,
    }
    return policy


def rows_for(longest: int, vocabulary: int = 64) -> list[TrainRow]:
    """Rows that share prompts, and some that do not, up to ``longest`` tokens."""
    draw = random.Random(5)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, vocabulary) for _ in range(count))

    first, second = ids(11), ids(3)
    shapes = [(first, 5), (first, longest - 11), (first, 9), (second, 17), (second, 4)]
    rows = [TrainRow(p, ids(max(1, min(n, longest - len(p))))) for p, n in shapes]
    return [*rows, TrainRow(ids(7), ids(min(21, longest - 7))), TrainRow(ids(1), ids(2))]


def plain(model, row: TrainRow) -> torch.Tensor:
    """Return the log-probs of a row by one call of the model."""
    ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(row.prompt_ids) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(row.response_ids)[:, None])[:, 0]


def slope(values: torch.Tensor, model) -> torch.Tensor:
    weights = torch.linspace(-1, 2, len(values))
    trainable = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(
        values @ weights, trainable, allow_unused=True, materialize_grads=True
    )
    return torch.cat([g.flatten() for g in found])


def difference(got: torch.Tensor, want: torch.Tensor) -> float:
    found = float((got.detach() - want.detach()).abs().max())
    return float("inf") if math.isnan(found) else found


def check_learner(policy, verdict: Verdict, reference) -> None:
    """Compare values and gradients of packed or padded rows, old and reference log-probs."""
    rows = rows_for(min(40, policy.max_length))
    want = torch.cat([plain(reference, row) for row in rows])
    wanted = slope(want, reference)
    before = {}
    recomputed = policy.params.gradient_checkpointing
    for turn in range(2):
        logprobs, _, mask = response_logprobs(policy, rows)
        values = logprobs[mask]
        _note(verdict, "values", difference(values, want), f"learner, pass {turn + 1}")
        if not turn:
            slopes = slope(values, policy.model)
            share = float((slopes - wanted).norm() / wanted.norm())
            _note(verdict, "slopes", share, "gradients")
        before.setdefault("values", values.detach())
        if not torch.equal(before["values"], values.detach()):
            verdict.wrong = verdict.wrong or "two identical passes differ"
    kinds = [FrozenPolicy.of(policy, copied=True), policy][: 1 if recomputed else 2]
    for kind in kinds:
        old = torch.cat(detached_logprobs(kind, rows, token_budget=64, temperature=1.0))
        _note(verdict, "values", difference(old, want), "old or reference log-probs")
    alone = torch.cat(detached_logprobs(policy, rows, token_budget=1, temperature=1.0))
    _note(verdict, "values", difference(alone, want), "token_budget changes log-probs")


def check_decoding(policy, verdict: Verdict, reference) -> None:
    """Compare single rows, groups and refilled rows."""
    from alignkit_hf import HfRollout

    rows = rows_for(min(36, policy.max_length))
    prompts = sorted({row.prompt_ids for row in rows})
    for n, budget, asked in ((1, 2**18, prompts[-1:]), (3, 120, prompts)):
        backend = HfRollout(kv_cache_tokens=budget).build()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            backend.start(policy)
            how = replace(backend.sampling, n=n, max_tokens=24, seed=n)
            groups = backend.generate(asked, how)
        for prompt, group in zip(asked, groups, strict=True):
            for completion in group:
                with torch.no_grad():
                    want = plain(reference, TrainRow(prompt, completion.token_ids))
                got = torch.tensor(completion.logprobs)
                _note(verdict, "values", difference(got, want), f"decoding, n = {n}")


def _note(verdict: Verdict, what: str, found: float, where: str) -> None:
    setattr(verdict, what, max(getattr(verdict, what), found))
    if not found <= (VALUES if what == "values" else SLOPES):
        verdict.wrong = verdict.wrong or f"{where}: off by {found:.2g}"


def way_of(policy) -> str:
    """Return which pass the learner takes."""
    from alignkit.engine.forward.packable import can_pack, can_pad

    if can_pack(policy.model):
        return "packed"
    return "padded" if can_pad(policy.model) else "one by one"


def decoding_of(policy) -> str:
    from alignkit_hf import HfRollout

    backend = HfRollout().build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backend.start(policy)
        sampler = backend._paths.sampler(min(40, policy.max_length))
    if type(sampler).__name__ == "PlainSampler":
        return "plain"
    return "written out" if sampler.forward.fuses else "cached"


def check(config, folder: Path) -> Verdict:
    """Return the verdict on the models of ``config``."""
    from transformers import AutoModelForCausalLM

    from alignkit_hf.policy.refused import refusal

    verdict = Verdict()
    write(folder, config)
    for attention, recompute in (("sdpa", False), ("sdpa", True), ("eager", False)):
        keys = {"attention": "auto" if attention == "sdpa" else attention}
        if problem := refusal(config.to_dict()):
            verdict.refused = problem
            return verdict
        try:
            policy = policy_of(folder, **keys, gradient_checkpointing=recompute)
        except AlignkitError as error:  # before there is a run directory
            if "gradient_checkpointing" not in str(error):
                verdict.wrong = f"refused late: {error}"
            continue
        kernel = policy.model.config._attn_implementation
        reference = AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation=kernel, dtype=torch.float32
        ).eval()
        check_learner(policy, verdict, reference)
        if not recompute:
            check_decoding(policy, verdict, reference)
        if verdict.wrong:
            verdict.wrong += f" ({attention}{', recomputed' if recompute else ''})"
            break
        if not recompute and attention == "sdpa":
            verdict.learner, verdict.decode = way_of(policy), decoding_of(policy)
    return verdict
