"""Does the engine hold the policy's weights? The engine itself is checked, in two ways.

Columns of some weight matrices are compared number by number, which shows an update that did not
arrive, however small it was. And the engine samples a probe, a continuation of a fixed text, which
the policy scores. That shows everything else that makes the two compute different log-probs: stale
caches, another model, another precision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alignkit.engine.forward.logprobs import response_logprobs
from alignkit.engine.tokens import TrainRow, encode
from alignkit.errors import AlignkitError
from alignkit_vllm.requests import Request
from alignkit_vllm.weights import clean, named_weights
from alignkit_vllm.worker import COLUMNS, ROWS, spread

if TYPE_CHECKING:
    from alignkit.protocols import Policy
    from alignkit_vllm.requests import Answer

PROBE_PROMPT = 160
"""Tokens of the probe's prompt: more than a block of the engine's prefix cache (16 on GPUs, 128
on CPUs), so that a cache kept over a sync shows in the second probe."""
PROBE_TOKENS = 64
"""Tokens sampled after it: enough that rounding on a few unlikely ones does not decide."""
PROBE_TEXT = (
    "A ferry leaves the harbour every forty minutes, the first at a quarter past six. It takes "
    "ninety cars, or sixty cars and five lorries, and needs twenty-five minutes to cross the bay. "
    "On Saturday 480 cars and 20 lorries are waiting when the gates open. How many crossings does "
    "it take to bring all of them over, and at what time does the last one reach the other side?\n"
    "Let us think step by step. A lorry takes the room of six cars, because five lorries stand "
    "where thirty cars would. So the lorries count as 20 x 6 = 120 cars, and together that is "
    "480 + 120 = 600 cars. Each crossing takes 90 of them: 600 / 90 = 6.67, so seven crossings are "
    "needed. The seventh ferry leaves six intervals after the first, which is 6 x 40 = 240 minutes "
    "or four hours later, at a quarter past ten. "
)
"""Text before the probe, cut to length. Models know texts like it and can continue them."""


class WeightsError(AlignkitError):
    """The engine does not hold the policy's weights."""


def compare_columns(policy: Policy, seen: Mapping[str, Any]) -> int:
    """Compare the policy's weights with what the workers' ``alignkit_columns`` returned.

    The policy's weights are rounded to the engine's type first. Returns how many numbers were
    compared.

    Raises:
        WeightsError: a number differs.
    """
    compared, dtype = 0, getattr(torch, seen["dtype"])
    parts = {name: _parts(name, seen["packed"]) for name in seen["columns"]}
    wanted = {part for names in parts.values() for part in names}
    weights = {name: value for name, value in named_weights(policy, dtype) if name in wanted}
    embedding = policy.model.get_input_embeddings().weight  # type: ignore[operator]
    for name, found in seen["columns"].items():
        matrices = [_upright(policy, p, weights[p]) for p in parts[name] if p in weights]
        if not matrices and _tied(policy) and name.endswith("head"):
            matrices = [_whole(embedding).to(dtype)]
        if len(matrices) != len(parts[name]):
            continue  # the engine names or packs this module differently
        compared += _same(name, _columns(matrices), found)
    return compared


def _same(name: str, want: list[list[float]], found: list[list[float]]) -> int:
    a, b = torch.tensor(want), torch.tensor(found)
    if a.shape != b.shape:
        raise WeightsError(
            f"the vLLM engine's {name} gives columns of shape {tuple(b.shape)}, the policy's gives "
            f"{tuple(a.shape)}: start the engine on the policy's model"
        )
    apart = (a - b).abs()
    wrong = int((apart > 1e-6 * a.abs()).sum())  # one-hot inputs are exact in every type
    if wrong:
        raise WeightsError(
            f"the vLLM engine does not hold the policy's weights: {wrong} of {a.numel()} numbers "
            f"of {name} differ, by up to {float(apart.max()):.3g}. The last sync did not arrive; "
            "resume the run, and report this if it happens again"
        )
    return a.numel()


def _parts(name: str, packed: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names, in a checkpoint, of the matrices that the engine's module ``name`` joins.

    >>> _parts("model.layers.0.mlp.gate_up_proj", {"gate_up_proj": ["gate_proj", "up_proj"]})
    ['model.layers.0.mlp.gate_proj.weight', 'model.layers.0.mlp.up_proj.weight']
    """
    parent, _, last = name.rpartition(".")
    prefix = f"{parent}." if parent else ""
    return [f"{prefix}{part}.weight" for part in packed.get(last, [last])]


def _columns(matrices: Sequence[Tensor]) -> list[list[float]]:
    matrix = torch.cat(list(matrices))  # (outputs, inputs)
    rows, at = spread(matrix.shape[0], ROWS), spread(matrix.shape[1], COLUMNS)
    values: list[list[float]] = matrix[rows][:, at].T.float().cpu().tolist()
    return values


def _upright(policy: Policy, name: str, weight: Tensor) -> Tensor:
    """Return the weight as (outputs, inputs); GPT-2's ``Conv1D`` layers hold it transposed."""
    owner = {clean(n): m for n, m in policy.model.named_modules()}.get(name.rpartition(".")[0])
    return weight.T if type(owner).__name__ == "Conv1D" else weight


def _tied(policy: Policy) -> bool:
    config: Any = getattr(policy.model, "config", None)
    return bool(getattr(config, "tie_word_embeddings", False))


def _whole(weight: Any) -> Tensor:
    whole: Tensor = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
    return whole.detach()


def probe(policy: Policy, max_len: int) -> Request:
    """Return the request, equal in every check, that samples tokens after ``PROBE_TEXT``."""
    ends, vocabulary = policy.eos_ids, _vocabulary(policy)
    text = encode(policy.tokenizer, PROBE_TEXT)
    known = [i for i in text if i < vocabulary and i not in ends] or [0]
    size = max(1, min(PROBE_PROMPT, max_len - PROBE_TOKENS))
    prompt = tuple(islice(cycle(known), size))
    tokens = min(PROBE_TOKENS, max_len - size)
    return Request(
        prompt,
        1,
        {
            "temperature": 1.0,
            "seed": 0,
            "max_tokens": tokens,
            # Not min_tokens, which would set the probability of the ending tokens to 0.
            "ignore_eos": True,
        },
    )


def _vocabulary(policy: Policy) -> int:
    embedding: Any = policy.model.get_input_embeddings()  # type: ignore[operator]
    return int(embedding.weight.shape[0])


@dataclass(frozen=True, slots=True)
class Apart:
    """How far the policy's log-probs are from the engine's on sampled tokens, nats per token."""

    gap: float
    """Mean of the absolute difference."""
    kl: float
    """Mean of r - 1 - log r with r = π_policy / π_engine, which estimates KL(engine ‖ policy)."""


@torch.no_grad()
def apart(policy: Policy, request: Request, answer: Answer) -> Apart:
    """Compare the engine's log-probs of its answer with the policy's."""
    rows = [TrainRow(request.prompt, answer.token_ids)]
    found, _, mask = response_logprobs(policy, rows, with_entropy=False)
    log_r = found[mask].double().cpu() - torch.tensor(answer.logprobs, dtype=torch.float64)
    return Apart(float(log_r.abs().mean()), float((log_r.expm1() - log_r).mean()))


def bound_for(dtype: torch.dtype) -> float:
    """Return the largest gap that is accepted as rounding when the recipe sets none.

    There is no such bound in 16 bits: rounding enters a mean of absolute differences in full, but
    the KL divergence only with its square.
    """
    return 0.01 if dtype == torch.float32 else math.inf


def require_small(found: Apart, max_gap: float, max_kl: float) -> None:
    """Raise WeightsError if the gap or the KL divergence is NaN or above its bound."""
    for value, key, bound, what in (
        (found.gap, "max_logprob_gap", max_gap, "on average"),
        (found.kl, "max_rollout_kl", max_kl, "of KL divergence"),
    ):
        if not value <= bound:
            raise WeightsError(
                f"the vLLM engine and the policy disagree on a probe by {value:.3g} nats per "
                f"token {what}, above {key} = {bound:g}: the engine computes with other weights, "
                "or with another precision or attention. Set dtype in [rollout] to the policy's, "
                f"or raise {key} if you accept the difference"
            )
