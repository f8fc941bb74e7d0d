"""A small policy that the CPU engine takes (its attention wants heads of 32 numbers)."""

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import pytest


def write_policy(folder, *, tied):
    import torch
    from transformers import AutoTokenizer, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    from alignkit.testing import tiny_model

    tokenizer = AutoTokenizer.from_pretrained(tiny_model())
    ends = GenerationConfig.from_pretrained(tiny_model())
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=ends.eos_token_id[0],
        pad_token_id=ends.eos_token_id[0],
        initializer_range=0.2,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    model.generation_config = ends
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def untied_folder(tmp_path_factory):
    """Two ids end a response; the output head has weights of its own."""
    return write_policy(tmp_path_factory.mktemp("untied"), tied=False)


@pytest.fixture(scope="session")
def tied_folder(tmp_path_factory):
    """As ``untied_folder``, with the embedding as output head."""
    return write_policy(tmp_path_factory.mktemp("tied"), tied=True)


@pytest.fixture
def sharded_trainer(tmp_path):
    """Return a function that runs both ranks of ``sharded.py`` to their end."""

    def run(folder, out, *url, **environment):
        script = Path(__file__).with_name("sharded.py")
        ranks = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-W",
                    "ignore",
                    script,
                    folder,
                    tmp_path / "store",
                    rank,
                    out,
                    *url,
                ],
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **environment},
            )
            for rank in ("0", "1")
        ]
        for rank in ranks:
            _, errors = rank.communicate(timeout=600)
            assert rank.returncode == 0, errors

    return run
