"""What checks of rollout backends share: a served tiny policy, and its expected responses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from alignkit.document import Document
from alignkit.protocols import Completion, Sampling
from alignkit_testing.kit import Subject
from alignkit_testing.standins import stand_in

QUESTIONS = ("1+1=", "What is 6 * 7?", "2", "ab ab ab ab")


@contextmanager
def serving(subject: Subject) -> Iterator[tuple[Any, Any]]:
    """Start the backend on a tiny policy; yield both."""
    policy = policy_of(subject)
    backend = subject.build()
    try:
        backend.start(policy)
        yield backend, policy
    finally:
        backend.close()


def policy_of(subject: Subject) -> Any:
    """Return the tiny policy."""
    from alignkit import recipe

    document = Document(stand_in("policy"), {})
    return recipe.resolve(document, subject.registry, "policy").build()


def sampling_of(**how: Any) -> Sampling:
    """Return how to sample: short, seeded."""
    return Sampling(**{"max_tokens": 12, "seed": 1, "step": 1, **how})


def prompts_of(policy: Any) -> list[list[int]]:
    """Return the token ids of ``QUESTIONS``."""
    return [policy.tokenizer.encode(q, add_special_tokens=False) for q in QUESTIONS]


def flat(groups: Sequence[Sequence[Completion]]) -> list[Completion]:
    """Return the completions of all groups."""
    return [completion for group in groups for completion in group]


def ids_of(groups: Sequence[Sequence[Completion]]) -> list[list[tuple[int, ...]]]:
    """Return the token ids of each completion of each group."""
    return [[tuple(c.token_ids) for c in group] for group in groups]


def is_well_formed(completion: Completion, policy: Any) -> None:
    """Ids, log-probs, text and weight version fit each other."""
    ids, logprobs = completion.token_ids, completion.logprobs
    assert len(ids) == len(logprobs), f"{len(ids)} token ids have {len(logprobs)} log-probs"
    assert all(-1e4 < p <= 1e-6 for p in logprobs), f"log-probs out of range: {min(logprobs)}"
    assert completion.finish_reason in ("stop", "length"), f"finish_reason {completion}"
    text = policy.tokenizer.decode(
        list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    assert completion.text == text, f"text is {completion.text!r}, its ids say {text!r}"
    assert completion.weight_version == policy.version, (
        f"weight_version is {completion.weight_version}, the policy's is {policy.version}"
    )


def is_same(index: int, found: Sequence[Completion], want: Sequence[Completion]) -> None:
    """Equal but for the rounding of log-probs, which may depend on the batch."""
    exact = [[(c.token_ids, c.text, c.finish_reason) for c in group] for group in (found, want)]
    assert exact[0] == exact[1], f"prompt {index} gets {exact[0]}, from generate {exact[1]}"
    for a, b in zip(found, want, strict=True):
        apart = max((abs(x - y) for x, y in zip(a.logprobs, b.logprobs, strict=True)), default=0.0)
        assert apart < 1e-2, f"prompt {index}: log-probs differ by {apart:.3g} from generate's"


def logits_of(policy: Any, prompt: Sequence[int], ids: Sequence[int]) -> torch.Tensor:
    """Return the logits (T, V) that predict each of ``ids``."""
    device = next(policy.model.parameters()).device
    with torch.no_grad(), policy.autocast():
        row = torch.tensor([[*prompt, *ids]], device=device)
        logits: torch.Tensor = policy.model(row, use_cache=False).logits
    return logits[0, len(prompt) - 1 : -1].float().cpu()


def logprobs_of(
    policy: Any, prompt: Sequence[int], ids: Sequence[int], temperature: float
) -> torch.Tensor:
    """Return the policy's log-probs (T,) of ``ids``."""
    scores = (logits_of(policy, prompt, ids) / temperature).log_softmax(-1)  # (T, V)
    return scores.gather(1, torch.tensor(ids)[:, None])[:, 0]  # (T,)


def argmax_of(policy: Any, prompt: Sequence[int], ids: Sequence[int]) -> list[int]:
    """Return the most probable token before each of ``ids``."""
    best: list[int] = logits_of(policy, prompt, ids).argmax(-1).tolist()
    return best
