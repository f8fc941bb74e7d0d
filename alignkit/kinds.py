"""The component kinds: the protocol a component builds, and the hook that offers it."""

from __future__ import annotations

from alignkit import protocols as p

KINDS: dict[type, str] = {
    p.Algorithm: "algorithm",
    p.Policy: "policy",
    p.Dataset: "dataset",
    p.PromptTemplate: "prompt_template",
    p.RewardFn: "reward_fn",
    p.Advantage: "advantage",
    p.LossType: "loss_type",
    p.Normalizer: "normalizer",
    p.RolloutBackend: "rollout_backend",
    p.Optimizer: "optimizer",
    p.Tracker: "tracker",
}
