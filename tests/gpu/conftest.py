"""What tests on a CUDA device share: ``pytest -m gpu`` runs them, on a machine without one none."""

import pytest


@pytest.fixture(scope="session")
def cuda():
    """Skip unless torch finds a CUDA device; return torch."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch


@pytest.fixture(scope="session")
def wide_folder(tmp_path_factory):
    """A small random policy with heads of 64 numbers, which every attention kernel takes."""
    import torch
    from transformers import AutoTokenizer, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    from alignkit.testing import tiny_model

    folder = tmp_path_factory.mktemp("wide")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model())
    ends = GenerationConfig.from_pretrained(tiny_model())
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=ends.eos_token_id[0],
        pad_token_id=ends.eos_token_id[0],
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    model.generation_config = ends
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
