"""The functions of the 2026 edition, by its names and keywords.

What both editions have and define alike, the optional part included, is the same object as in
``alignkit_cs336.spring2025``.
"""

from __future__ import annotations

from alignkit_cs336.batches import get_packed_sft_dataset, iterate_batches
from alignkit_cs336.estimators import (
    aggregate_loss_across_microbatch,
    compute_group_normalized_rewards,
    compute_policy_gradient_loss,
    compute_rollout_rewards,
)
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
from alignkit_cs336.server import VLLMServer
from alignkit_cs336.steps import masked_mean, masked_normalize
from alignkit_cs336.train_step import grpo_train_step
from alignkit_cs336.vllm_helpers import evaluate_vllm, log_generations

__all__ = [
    "VLLMServer",
    "aggregate_loss_across_microbatch",
    "compute_entropy",
    "compute_group_normalized_rewards",
    "compute_per_instance_dpo_loss",
    "compute_policy_gradient_loss",
    "compute_rollout_rewards",
    "evaluate_vllm",
    "get_packed_sft_dataset",
    "get_response_log_probs",
    "grpo_train_step",
    "iterate_batches",
    "log_generations",
    "masked_mean",
    "masked_normalize",
    "parse_gsm8k_response",
    "parse_mmlu_response",
    "question_only_reward_fn",
    "r1_zero_reward_fn",
    "tokenize_prompt_and_output",
]
