"""What plugins offer: the kinds of component a recipe chooses among, and commands."""

from __future__ import annotations

from alignkit import protocols as p

KINDS: dict[type, str] = {
    p.Algorithm: "algorithm", p.Policy: "policy", p.Dataset: "dataset",
    p.PromptTemplate: "prompt_template", p.RewardFn: "reward_fn", p.Environment: "environment",
    p.Advantage: "advantage", p.LossType: "loss_type", p.Normalizer: "normalizer",
    p.RolloutBackend: "rollout_backend", p.Optimizer: "optimizer", p.Tracker: "tracker",
}  # fmt: skip
"""The protocol that a component of a recipe builds, and the hook that offers it."""

HOOKS = (*KINDS.values(), "command")
"""All hooks: those of :data:`KINDS`, and the one for what no recipe chooses."""
