"""The size of micro-batches on a CPU follows what a token keeps for the backward pass."""

from dataclasses import dataclass

import pytest
import torch

from alignkit.engine.forward.checkpointing import checkpoint
from alignkit.engine.learning.cpu_tokens import cpu_tokens


@dataclass
class Policy:
    """A policy that trains an adapter, of which ``base`` is the model without."""

    model: object
    base: object = None
    adapter: object = None

    def weights(self):
        return iter(())


def model(hidden, inner):
    """Return a Qwen2 of 4 layers and a large vocabulary, float32, without values."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.device("meta"):
        return Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=50_000,
                hidden_size=hidden,
                intermediate_size=inner,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_key_value_heads=4,
                tie_word_embeddings=False,
            )
        )


# A layer's products have 4 x 2 hidden and 3 x (hidden + inner) inputs and outputs of 4 bytes.
# 96, 256: 1,824 x 16 = 29,184 bytes a token; 2^26 / 29,184 = 2,299.
# 160, 384: 2,912 x 16 = 46,592 bytes; 2^26 / 46,592 = 1,440. With the embeddings, 160 + 50,000
# each, it would be far below 1,024.
# 256, 1,024: 5,888 x 16 = 94,208 bytes; 2^26 / 94,208 = 712.
@pytest.mark.parametrize(
    ("hidden", "inner", "tokens"), [(96, 256, 2048), (160, 384, 1440), (256, 1024, 1024)]
)
def test_micro_batches_are_smaller_where_a_token_keeps_more(hidden, inner, tokens):
    assert cpu_tokens(Policy(model(hidden, inner))) == tokens


def test_weights_of_two_bytes_keep_half():
    assert cpu_tokens(Policy(model(256, 1024).bfloat16())) == 2**26 // (5888 * 8)  # 1,424


def test_layers_that_are_computed_again_keep_nothing():
    subject = model(256, 1024)
    checkpoint(subject)
    assert cpu_tokens(Policy(subject)) == 2048


def test_an_adapter_changes_nothing():
    assert cpu_tokens(Policy(model(256, 1024), base=model(96, 256))) == 2048
