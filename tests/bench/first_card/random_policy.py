"""Write a policy with random weights into a folder: nothing is downloaded.

    python tests/bench/first_card/random_policy.py FOLDER          # the shape of Qwen2.5-Math-1.5B
    python tests/bench/first_card/random_policy.py FOLDER --tiny   # for a CPU

The tokenizer is one of bytes, with as many further tokens as the vocabulary has room for: every
id that such a model draws can be turned into text.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

LARGE = {
    "vocab_size": 151_936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
}
TINY = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,  # of 32 numbers, which vLLM's attention on CPUs takes
    "num_key_value_heads": 1,
}
END = "<|endoftext|>"


def tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes whose vocabulary is filled up to ``size`` tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fill = [f"token{i}" for i in range(size - len(alphabet) - 1)]
    vocabulary = {text: i for i, text in enumerate([*alphabet, *fill, END])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, pad_token=END)


def main() -> None:
    """Write configuration, weights and tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    sizes = TINY if given.tiny else LARGE
    end = sizes["vocab_size"] - 1
    ends = {"eos_token_id": end, "pad_token_id": end, "bos_token_id": None}
    config = Qwen2Config(
        **sizes, **ends, max_position_embeddings=4096, tie_word_embeddings=True, dtype="bfloat16"
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.generation_config = GenerationConfig(**ends)
    model.save_pretrained(given.folder)
    tokenizer(sizes["vocab_size"]).save_pretrained(given.folder)


if __name__ == "__main__":
    main()
