"""Checks of a policy that only scores: log-probs of a model that reads the policy's ids.

It has to score by the kit's model, for example behind a server of the test:
``params={"policy/mine": {"url": serve(tiny_model())}}``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import torch

from alignkit.errors import AlignkitError
from alignkit_testing.kit import Check, Subject
from alignkit_testing.served import policy_of, prompts_of

ROUNDING = 1e-3
"""Nats by which two scores of the same token may differ, as servers batch as they like."""
Row = tuple[Sequence[int], int]


def gives_a_number_per_id(subject: Subject) -> None:
    """A row has as many scores as it has ids from its place on, all finite and at most 0."""
    scorer, policy = _met(subject)
    rows = _rows(policy)
    found = scorer.score(rows)
    assert len(found) == len(rows), f"{len(found)} lists for {len(rows)} rows"
    for (ids, first), own in zip(rows, found, strict=True):
        wanted = len(ids) - first
        assert len(own) == wanted, f"{len(own)} scores for the {wanted} ids from place {first} on"
        wrong = [p for p in own if not (math.isfinite(p) and p <= ROUNDING)]
        assert not wrong, f"{wrong[0]!r} is no log-prob"


def scores_by_the_model(subject: Subject) -> None:
    """The scores are the model's log-probs at temperature 1, each id given all before it."""
    scorer, policy = _met(subject)
    rows = _rows(policy)
    _close(scorer.score(rows), [_forward(policy, row) for row in rows], "the model's log-probs")


def scores_rows_apart(subject: Subject) -> None:
    """Rows of other lengths beside it, before or behind it, change no row's scores."""
    scorer, policy = _met(subject)
    rows = _rows(policy)
    together = scorer.score(rows)
    _close([scorer.score([row])[0] for row in rows], together, "those in company")
    _close(scorer.score(rows[::-1])[::-1], together, "those in another order")


def scores_without_looking_ahead(subject: Subject) -> None:
    """What follows a token, or where the scores begin, changes no token's score."""
    scorer, policy = _met(subject)
    ids, _ = max(_rows(policy), key=lambda row: len(row[0]))
    whole, shorter, later = scorer.score([(ids, 1), (ids[:-2], 1), (ids, 3)])
    _close([whole[:-2]], [shorter], "those of a row without its last two ids")
    _close([whole[2:]], [later], "those from a later place on")


def scores_again_alike(subject: Subject) -> None:
    """The same row has the same scores at every call, and in every build: nothing is drawn."""
    scorer, policy = _met(subject)
    rows = _rows(policy)
    first = scorer.score(rows)
    _close(scorer.score(rows), first, "those of the first call")
    _close(_met(subject)[0].score(rows), first, "those of another build")


def refuses_other_ids(subject: Subject) -> None:
    """`meet` refuses a policy whose tokenizer gives its ids other meanings."""
    scorer, policy = subject.build(), policy_of(subject)
    try:
        scorer.meet(_Reads(policy, _swapped(policy.tokenizer)), temperature=1.0)
    except AlignkitError:
        return
    raise AssertionError("`meet` takes a policy whose ids mean something else")


class _Reads:
    """A policy with another tokenizer."""

    def __init__(self, policy: Any, tokenizer: Any) -> None:
        self._policy, self.tokenizer = policy, tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)


def _swapped(tokenizer: Any) -> Any:
    """Return the tokenizer with two ids exchanged."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    core = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = core["model"]["vocab"]
    one, other = list(vocabulary)[-2:]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(json.dumps(core)), eos_token=tokenizer.eos_token
    )


def _met(subject: Subject) -> tuple[Any, Any]:
    scorer, policy = subject.build(), policy_of(subject)
    scorer.meet(policy, temperature=1.0)
    return scorer, policy


def _rows(policy: Any) -> list[Row]:
    """Return rows of several lengths, scored from the first place and from later ones."""
    prompts = prompts_of(policy)
    longest = max(prompts, key=len)
    return [(ids, max(1, len(ids) // 2)) for ids in [*prompts, [*longest, *longest]] if ids[1:]]


def _forward(policy: Any, row: Row) -> list[float]:
    ids, first = row
    with torch.no_grad(), policy.autocast():
        inputs = torch.tensor([list(ids)], device=next(policy.model.parameters()).device)
        log_p = policy.model(inputs, use_cache=False).logits[0].float().log_softmax(-1)
    return [log_p[place - 1, ids[place]].item() for place in range(first, len(ids))]


def _close(found: Sequence[Sequence[float]], wanted: Sequence[Sequence[float]], what: str) -> None:
    lengths, other = [len(own) for own in found], [len(own) for own in wanted]
    assert lengths == other, f"rows have {lengths} scores, and {other} are {what}"
    apart = [
        abs(a - b)
        for one, two in zip(found, wanted, strict=True)
        for a, b in zip(one, two, strict=True)
    ]
    worst = max(apart)
    assert worst <= ROUNDING, f"scores differ by up to {worst:.3g} nats from {what}"


CHECKS: tuple[Check, ...] = (
    gives_a_number_per_id,
    scores_by_the_model,
    scores_rows_apart,
    scores_without_looking_ahead,
    scores_again_alike,
    refuses_other_ids,
)
