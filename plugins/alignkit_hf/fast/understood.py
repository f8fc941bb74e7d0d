"""Which configurations the decoding steps of ``fused`` implement: those of known fields only.

A field that is not listed may mean anything, so a model that has one keeps its own forward. Some
fields are listed with the value at which they change nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch

_READ = frozenset(
    {
        # sizes, read off the weights
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings",
        # read off the modules: biases, norms, the activation, the scale of scores, ties
        "attention_bias", "mlp_bias", "rms_norm_eps", "hidden_act", "attention_multiplier",
        "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id",
        # for training or for others
        "attention_dropout", "initializer_range", "use_cache", "torch_dtype",
        # of no effect without a window, which is asked for apart
        "max_window_layers",
    }
)  # fmt: skip

_NEUTRAL: Mapping[str, Any] = {
    "embedding_multiplier": 1.0,
    "residual_multiplier": 1.0,
    "logits_scaling": 1.0,
    "partial_rotary_factor": 1.0,
    "pretraining_tp": 1,
    "sliding_window": None,
    "use_sliding_window": False,
    "rope_scaling": None,
}

_TURNS = frozenset(
    {
        "rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings",
        "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "attention_factor",
        "mscale", "mscale_all_dim", "truncate",
    }
)  # fmt: skip
"""Settings of rotary positions that the model's own table of angles takes into account."""


def unknown_fields(config: Any) -> list[str]:
    """Return the fields of a model's configuration that mean something not implemented, sorted."""
    from transformers import PreTrainedConfig

    settings = config.to_dict()
    usual = set(PreTrainedConfig().to_dict()) | _READ
    found = {
        name
        for name, value in settings.items()
        if name not in usual and not (name in _NEUTRAL and value == _NEUTRAL[name])
    }
    rope = settings.get("rope_parameters")
    if isinstance(rope, Mapping) and _turns_known(rope):
        found.discard("rope_parameters")
    if _all_full(settings.get("layer_types")):
        found.discard("layer_types")
    return sorted(found)


def _turns_known(rope: Mapping[str, Any]) -> bool:
    more = set(rope) - _TURNS
    return all(name in _NEUTRAL and rope[name] == _NEUTRAL[name] for name in more)


def _all_full(kinds: Iterable[str] | None) -> bool:
    return set(kinds or ()) <= {"full_attention"}


def shortened(model: Any) -> Any:
    """Return a float32 copy of ``model`` with two of its layers."""
    base = model.base_model
    layers = base.layers
    base.layers = layers[:2]
    try:
        return copy.deepcopy(model).to(torch.float32)
    finally:
        base.layers = layers
