"""What holds of every policy: a model and tokenizer that agree, and weights that can be saved.

Policies are large; give the kit a small one, for example
``params={"policy/mine": {"path": tiny_model()}}``.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from alignkit.dialogues import Ends
from alignkit_testing.kit import Check, Subject

TEXT = "2+2=4"


def knows_its_ids(subject: Subject) -> None:
    """End-of-sequence and padding ids are ids of the vocabulary; there is a length limit."""
    policy = subject.build()
    size = _logits(policy).shape[-1]
    ends = policy.eos_ids
    assert isinstance(ends, frozenset), f"eos_ids is a {type(ends).__name__}, not a frozenset"
    assert ends, "eos_ids is empty: no response would ever end by itself"
    for what, value in [*(("eos_ids", e) for e in ends), ("pad_id", policy.pad_id)]:
        inside = isinstance(value, int) and 0 <= value < size
        assert inside, f"{what} holds {value!r}; the vocabulary has {size} ids from 0"
    assert policy.max_length > 0, f"max_length is {policy.max_length}"
    named = isinstance(policy.name, str) and policy.name != ""
    assert named, f"name is {policy.name!r}, not the folder or Hub name of the weights"


def starts_at_version_zero(subject: Subject) -> None:
    """`version` counts updates from 0 and can be counted up by the learner."""
    policy = subject.build()
    assert policy.version == 0, f"a new policy has version {policy.version}, not 0"
    policy.version += 1
    assert policy.version == 1, f"version += 1 leaves it at {policy.version}"


def holds_one_model(subject: Subject) -> None:
    """`model` and `tokenizer` are the same objects at every look; something can be trained."""
    policy = subject.build()
    assert isinstance(policy.model, nn.Module), f"model is a {type(policy.model).__name__}"
    assert policy.model is policy.model, "model is another object at every look"
    assert policy.tokenizer is policy.tokenizer, "tokenizer is another object at every look"
    assert any(p.requires_grad for p in policy.model.parameters()), "nothing can be trained"


def predicts_without_chance(subject: Subject) -> None:
    """Two forward passes agree: dropout would make rollouts and updates see other functions."""
    policy = subject.build()
    first, second = _logits(policy), _logits(policy)
    length = len(_ids(policy))
    assert first.shape[:2] == (1, length), (
        f"logits of {length} ids have shape {tuple(first.shape)}, not (1, {length}, vocabulary)"
    )
    assert torch.equal(first, second), "two forward passes differ; is dropout on?"


def keeps_text(subject: Subject) -> None:
    """The tokenizer gives text back as it was, without adding ids unasked."""
    policy = subject.build()
    for text in (TEXT, "Two  words\n\nc", "<think> X </think>"):
        ids = policy.tokenizer.encode(text, add_special_tokens=False)
        back = policy.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        assert back == text, f"{text!r} comes back as {back!r}"


def saves_what_it_is(subject: Subject) -> None:
    """`save` writes a folder that `from_pretrained` loads: updated weights, tokenizer, all ends."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy = subject.build()
    ends = policy.eos_ids
    with torch.no_grad():  # weights after an update, not those of the file they came from
        for parameter in policy.model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    want = _logits(policy)
    with tempfile.TemporaryDirectory() as folder:
        policy.save(Path(folder) / "saved")
        saved = Path(folder) / "saved"
        model = AutoModelForCausalLM.from_pretrained(  # nosec B615 # a folder just written
            saved, dtype=want.dtype
        )
        tokenizer = AutoTokenizer.from_pretrained(saved)  # nosec B615 # a folder just written
        ids = torch.tensor([_ids(policy)])
        with torch.no_grad():
            model.eval()  # type: ignore[no-untyped-call]
            got = model(ids).logits
    apart = (got - want.to(got.device)).abs().max().item()
    assert apart < 1e-3, f"logits of the saved model are off by up to {apart:.3g}"
    assert tokenizer.encode(TEXT) == policy.tokenizer.encode(TEXT), "the saved tokenizer differs"
    kept = model.generation_config.eos_token_id
    kept = {kept} if isinstance(kept, int) else set(kept or ())
    assert kept >= ends, f"the saved generation config ends at {kept}, the policy at {set(ends)}"


def ends_where_it_is_told(subject: Subject) -> None:
    """`end_at`, where it is offered, adds to `eos_ids` and to what `save` writes."""
    policy: Any = subject.build()
    if not isinstance(policy, Ends):
        return
    policy = cast(Any, policy)
    had = policy.eos_ids
    more = next(i for i in range(_logits(policy).shape[-1]) if i not in had)
    policy.end_at(iter([more]))
    assert policy.eos_ids == had | {more}, f"ends {set(had)} and {more} give {policy.eos_ids}"
    with tempfile.TemporaryDirectory() as folder:
        policy.save(Path(folder) / "saved")
        file = Path(folder) / "saved" / "generation_config.json"
        kept = json.loads(file.read_text(encoding="utf-8"))["eos_token_id"]
    kept = {kept} if isinstance(kept, int) else set(kept)
    assert kept >= policy.eos_ids, f"the saved generation config ends at {kept}, lacking {more}"


def _ids(policy: Any) -> list[int]:
    ids: list[int] = policy.tokenizer.encode(TEXT, add_special_tokens=False)
    return ids


def _logits(policy: Any) -> Tensor:
    device = next(policy.model.parameters()).device
    ids = torch.tensor([_ids(policy)], device=device)
    with torch.no_grad(), policy.autocast():
        logits: Tensor = policy.model(ids, use_cache=False).logits
    return logits


CHECKS: tuple[Check, ...] = (
    knows_its_ids,
    starts_at_version_zero,
    holds_one_model,
    predicts_without_chance,
    keeps_text,
    saves_what_it_is,
    ends_where_it_is_told,
)
