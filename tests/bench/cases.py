"""What both libraries are given: the same random weights, prompts, rows and pairs.

Imports torch and transformers only, as it runs in TRL's environment too. Every character of a
text is one token.
"""

from __future__ import annotations

import random
import string
from dataclasses import asdict, dataclass
from pathlib import Path

STEP = "@@"
"""Marks the lines a worker reports with; whatever else the libraries print is passed over."""

END = 300
"""The id that ends the given responses of sft and dpo."""


@dataclass(frozen=True)
class Case:
    """One comparison. Lengths are in tokens."""

    kind: str
    """"grpo", "sft" or "dpo"."""
    vocabulary: int = 1024
    prompts: int = 8
    """Prompts a step; for sft and dpo rows or pairs a round."""
    prompt_tokens: tuple[int, int] = (24, 44)
    group: int = 8
    max_tokens: int = 64
    ends: int = 0
    """Ids that end a response when sampled, out of the vocabulary: its length is geometric."""
    epochs: int = 1
    """Passes over each rollout batch."""
    batch: int = 16
    """sft, dpo: rows or pairs per optimizer step."""
    mean_tokens: int = 59
    """sft, dpo: mean length of a response, geometric up to ``max_tokens``."""

    def dict(self) -> dict:
        return asdict(self)


def rng_of(case: Case) -> random.Random:
    return random.Random(f"{case.kind}/{case.prompts}")


def text(rng: random.Random, tokens: int) -> str:
    return "".join(rng.choices(string.ascii_letters, k=tokens))


def prompts(case: Case) -> list[str]:
    rng = rng_of(case)
    return [text(rng, rng.randint(*case.prompt_tokens)) for _ in range(case.prompts)]


def response(rng: random.Random, case: Case) -> str:
    length = 1 + int(rng.expovariate(1 / case.mean_tokens))
    return text(rng, min(length, case.max_tokens))


def rows(case: Case) -> list[dict[str, str]]:
    """Return prompts with a response, or with a chosen and a rejected one."""
    rng = rng_of(case)
    names = ("chosen", "rejected") if case.kind == "dpo" else ("completion",)
    return [
        {"prompt": prompt, **{name: response(rng, case) for name in names}}
        for prompt in prompts(case)
    ]


def reward(response: str) -> float:
    """Return 1 for about half of all responses."""
    return float(sum(response.encode()) % 2)


def make_folder(case: Case, folder: Path) -> None:
    """Write a random Qwen2 and a tokenizer of bytes; ids above 255 never come from text.

    In grpo no id within the model's reach is the tokenizer's end, so that lengths are as the
    case says: ``max_tokens``, or ended by one of ``ends`` ids of the generation config.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        GenerationConfig,
        PreTrainedTokenizerFast,
        Qwen2Config,
        Qwen2ForCausalLM,
    )
    from transformers.utils import logging

    logging.disable_progress_bar()

    size = case.vocabulary
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*alphabet, *(f"t{i}" for i in range(len(alphabet), size))]
    names += ["<end>"] * (case.kind == "grpo")
    core = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    end = "<end>" if case.kind == "grpo" else names[END]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=end, pad_token=names[0])
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=size,
            hidden_size=256,
            num_hidden_layers=4,
            intermediate_size=1024,
            num_attention_heads=8,
            num_key_value_heads=8,
            tie_word_embeddings=False,
            max_position_embeddings=4096,
            bos_token_id=None,
            pad_token_id=0,
            eos_token_id=END,
        )
    )
    ends = [*range(size - case.ends, size), size] if case.kind == "grpo" else [END]
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=0)
    model.save_pretrained(folder)
