"""Tiny configurations of every architecture that transformers maps to a causal language model."""

from __future__ import annotations

import copy

ROW = 64
"""Most tokens of a row."""
VOCABULARY = 64

SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": ROW,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    # other names of the same
    "n_embd": 32,
    "n_layer": 3,
    "n_layers": 3,
    "n_head": 4,
    "n_heads": 4,
    "n_inner": 64,
    "n_positions": ROW,
    "n_ctx": ROW,
    "d_model": 32,
    "d_ff": 64,
    "d_inner": 32,
    "dff": 64,
    "d_kv": 8,
    "d_head": 8,
    "ffn_dim": 64,
    "ffn_hidden_size": 64,
    "max_seq_len": ROW,
    "emb_dim": 32,
    "embedding_size": 32,
    "word_embed_proj_dim": 32,
    "decoder_layers": 3,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 64,
    "encoder_layers": 1,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "num_layers": 3,
    "rotary_dim": 4,
    "max_target_positions": ROW,
    "max_source_positions": ROW,
    # experts
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "top_k_experts": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "shared_intermediate_size": 16,
    "expert_ffn_hidden_size": 16,
    "first_k_dense_replace": 1,
    "mlp_only_layers": [],
    "decoder_sparse_step": 1,
    # low-rank attention
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "qk_head_dim": 16,
    "v_head_dim": 8,
    "index_topk": 8,
    "index_n_heads": 2,
    "index_head_dim": 8,
    # states
    "state_size": 8,
    "time_step_rank": 4,
    "mamba_d_state": 8,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_expand": 2,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "mamba_n_groups": 1,
    "n_groups": 1,
    "mamba_d_ssm": 64,
    "mamba_chunk_size": 8,
    "chunk_size": 8,
    "linear_num_heads": 4,
    "linear_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "attention_hidden_size": 32,
    "lru_width": 32,
    "attention_chunk_size": 8,
    "attention_window_size": 8,
    "is_decoder": True,
    # windows
    "sliding_window": 8,
    "window_size": 8,
    "local_attention": 8,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": VOCABULARY,
}
"""What is set where a configuration has a field of the name."""

_LATENT = {"num_key_value_heads": 4}  # as many as queries: keys come from one latent
_MIXED = {"layer_types": ["conv", "full_attention", "conv"]}
_VISION = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
           "num_attention_heads": 2, "num_heads": 2}  # fmt: skip

AMENDED = {
    "axk1": _LATENT,
    "axk2": _LATENT,
    "deepseek_v2": {**_LATENT, "head_dim": 8},
    "deepseek_v3": _LATENT,
    "deepseek_v32": _LATENT,
    "dots1": {"n_shared_experts": 1},
    "gemma3n_text": {"num_hidden_layers": 4, "num_kv_shared_layers": 1, "layer_types": [
        "sliding_attention", "full_attention", "sliding_attention", "full_attention"]},
    "glm4_moe_lite": _LATENT,
    "glm_moe_dsa": _LATENT,
    "gpt_neo": {"attention_types": [[["global", "local", "local"], 1]]},
    "lfm2": _MIXED,
    "lfm2_moe": _MIXED,
    "longcat_flash": _LATENT,
    "mamba2": {"num_heads": 4, "head_dim": 16},
    "minicpm3": _LATENT,
    "reformer": {"is_decoder": True},
    "roc_bert": {"pronunciation_embed_dim": 8, "shape_embed_dim": 8, "enable_pronunciation": False,
                 "enable_shape": False},
    "youtu": _LATENT,
    "zamba2": {"layer_types": ["mamba", "hybrid", "mamba"]},
    "zaya": {"num_experts_per_tok": 1},
    "cpmant": {"dim_ff": 64, "dim_head": 8},
    "git": {"vision_config": _VISION},
    "gemma3": {"vision_config": _VISION},
    "got_ocr2": {"vision_config": _VISION},
}  # fmt: skip
"""What generic sizes leave inconsistent."""


def known_types():
    """Return every model type with a causal language model, in order."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny(kind, **changes):
    """Return a tiny configuration of the model type ``kind``."""
    from transformers import AutoConfig

    default = AutoConfig.for_model(kind)
    given = _fitting(default, changes)
    return AutoConfig.for_model(kind, **given)


def _fitting(default, changes):
    """Return the fields to set: small sizes that ``default`` has, and ``changes``."""
    fields = dict(vars(default))
    amended = AMENDED.get(default.model_type, {})
    text = default.get_text_config()
    if text is not default and "text_config" in fields:
        inner = {**_fitting(text, changes), "model_type": text.model_type}
        return {"text_config": inner, **amended}
    given = {k: copy.copy(v) for k, v in SMALL.items() if k in fields or k in _names(default)}
    return given | amended | changes


def _names(default):
    return set(getattr(default, "attribute_map", {}))
