"""What else is tried of an architecture, besides its default settings at a tiny size."""

from __future__ import annotations

_ROPE = {"rope_theta": 10_000.0, "original_max_position_embeddings": 16}
_LONG = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 1.5, 2.0, 4.0]}

ROPES = {
    "rope linear": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0},
    "rope yarn": {**_ROPE, "rope_type": "yarn", "factor": 4.0},
    "rope llama3": {
        **_ROPE, "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
    "rope dynamic": {**_ROPE, "rope_type": "dynamic", "factor": 4.0},
    "rope longrope": {**_ROPE, **_LONG, "rope_type": "longrope", "factor": 4.0},
}  # fmt: skip


def _ropes(**more):
    return {name: {"rope_parameters": {**rope, **more}} for name, rope in ROPES.items()}


_NO_WINDOW = {"no window": {"sliding_window": None}}
_TIES = {
    "tied": {"tie_word_embeddings": True},
    "untied": {"tie_word_embeddings": False},
}
_HEADS = {"heads of 12": {"head_dim": 12}}
_BIAS = {"attention biases": {"attention_bias": True}}

VARIANTS = {
    "bert": {"an encoder": {"is_decoder": False}},
    "llama": {**_ropes(), **_TIES, **_HEADS, **_BIAS, "mlp biases": {"mlp_bias": True}},
    "qwen2": {
        **_ropes(), **_TIES,
        "window": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    },
    "qwen3": {
        **_ropes(), **_TIES, **_HEADS, **_BIAS,
        "window": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    },
    "mistral": {**_ropes(), **_TIES, **_NO_WINDOW, "heads of 12, no window": {
        "head_dim": 12, "sliding_window": None,
    }},
    "phi3": {
        **_NO_WINDOW, **_TIES,
        "longrope, no window": {
            "sliding_window": None, "original_max_position_embeddings": 16,
            "rope_parameters": ROPES["rope longrope"],
        },
        "partial rotary": {
            "sliding_window": None,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5,
            },
        },
    },
    "gemma2": {
        **_TIES,
        "no softcap": {"attn_logit_softcapping": None, "final_logit_softcapping": None},
    },
    "gemma3_text": _TIES,
    "olmo2": {**_ropes(), **_TIES},
    "granite": {
        **_ropes(),
        "multipliers": {
            "residual_multiplier": 0.3, "embedding_multiplier": 2.0, "logits_scaling": 0.5,
            "attention_multiplier": 0.2,
        },
    },
    "granitemoe": {"multipliers": {"residual_multiplier": 0.3, "logits_scaling": 0.5}},
    "granitemoeshared": {"multipliers": {"residual_multiplier": 0.3, "logits_scaling": 0.5}},
    "hyperclovax": {"multipliers": {"residual_multiplier": 0.3, "logits_scaling": 0.5}},
    "cohere": {"logit scale": {"logit_scale": 0.3}, "tied": {"tie_word_embeddings": True}},
    "ministral3": {
        "scaled attention": {
            "sliding_window": None,
            "rope_parameters": {
                **ROPES["rope yarn"], "beta_fast": 32.0, "beta_slow": 1.0,
                "llama_4_scaling_beta": 0.5,
            },
        },
    },
    "phimoe": {**_NO_WINDOW, "jitter": {"router_jitter_noise": 0.3, "input_jitter_noise": 0.3}},
    "mixtral": {**_NO_WINDOW, "jitter": {"router_jitter_noise": 0.3}},
    "gpt_neo": {"global only": {"attention_types": [[["global"], 3]]}},
    "falcon": {
        "alibi": {"alibi": True},
        "new": {"new_decoder_architecture": True, "num_kv_heads": 2},
        "many queries": {"multi_query": False},
    },
    "opt": {"norms after": {"do_layer_norm_before": False}},
    "stablelm": {"head norms": {"qk_layernorm": True}, "parallel": {"use_parallel_residual": True}},
    "gpt_neox": {"in turn": {"use_parallel_residual": False}},
    "smollm3": _NO_WINDOW,
    "starcoder2": {**_NO_WINDOW, **_TIES},
    "minicpm3": _ropes(),
    "deepseek_v3": {"plain queries": {"q_lora_rank": None}},
}  # fmt: skip
