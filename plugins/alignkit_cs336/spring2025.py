"""The functions of the 2025 edition, by its names and keywords; also exported at the top level."""

from __future__ import annotations

from alignkit_cs336.batches import get_packed_sft_dataset, iterate_batches
from alignkit_cs336.grading import (
    parse_gsm8k_response,
    parse_mmlu_response,
    question_only_reward_fn,
    r1_zero_reward_fn,
)
from alignkit_cs336.preference import compute_per_instance_dpo_loss
from alignkit_cs336.scoring import (
    compute_entropy,
    get_response_log_probs,
    tokenize_prompt_and_output,
)
from alignkit_cs336.steps import (
    compute_group_normalized_rewards,
    compute_grpo_clip_loss,
    compute_naive_policy_gradient_loss,
    compute_policy_gradient_loss,
    grpo_microbatch_train_step,
    masked_mean,
    masked_normalize,
    sft_microbatch_train_step,
)
from alignkit_cs336.vllm_helpers import (
    evaluate_vllm,
    init_vllm,
    load_policy_into_vllm_instance,
    log_generations,
)

__all__ = [
    "compute_entropy",
    "compute_group_normalized_rewards",
    "compute_grpo_clip_loss",
    "compute_naive_policy_gradient_loss",
    "compute_per_instance_dpo_loss",
    "compute_policy_gradient_loss",
    "evaluate_vllm",
    "get_packed_sft_dataset",
    "get_response_log_probs",
    "grpo_microbatch_train_step",
    "init_vllm",
    "iterate_batches",
    "load_policy_into_vllm_instance",
    "log_generations",
    "masked_mean",
    "masked_normalize",
    "parse_gsm8k_response",
    "parse_mmlu_response",
    "question_only_reward_fn",
    "r1_zero_reward_fn",
    "sft_microbatch_train_step",
    "tokenize_prompt_and_output",
]
