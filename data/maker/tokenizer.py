"""The policy's tokenizer: byte-level, digits apart, the fixed part of the prompt three tokens.

The r1_zero prompt without its question is some 115 tokens to a common tokenizer. Here it is
three, so that a run on the embedded default spends its time on what it learns. Any other text
is encoded by the words it shares with the problems and else byte by byte. transformers reads
every tokenizer beside a Qwen2 as a Qwen2Tokenizer, whatever tokenizer.json says, so it is
one: Unicode text comes back in normal form C, as Qwen2's own tokenizer gives it, and all
else exactly.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from alignkit_prompts.template import PLACEHOLDER, bundled

END = "<|endoftext|>"
PAD = "<|pad|>"
TAGS = (" </think>", " <answer>", " </answer>")
"""With their space, as a response has them."""
DIGITS = tuple(f" {digit}" for digit in range(10))
"""A number's first digit with its space; the others are tokens as they are."""


def whole() -> tuple[str, ...]:
    """Return what else is one token: the prompt before and after the question, tags, digits."""
    before, after = bundled("r1_zero.txt").split(PLACEHOLDER)
    preamble, newline, user = before.rstrip(" ").rpartition("\n")
    return (preamble, newline + user, after, *TAGS, *DIGITS)


def build(texts: Iterable[str]) -> Qwen2Tokenizer:
    """Learn a byte-level BPE in which every word that ``texts`` repeats is one token."""
    qwen2 = Qwen2Tokenizer().backend_tokenizer
    core = Tokenizer(models.BPE())
    core.normalizer, core.pre_tokenizer = qwen2.normalizer, qwen2.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=2**16,  # never reached: the words run out first
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    learned = json.loads(core.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        learned["vocab"],
        [tuple(pair) for pair in learned["merges"]],  # type: ignore[misc]
        eos_token=END,
        pad_token=PAD,
        unk_token=None,  # type: ignore[arg-type]
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in whole()])
    return tokenizer
