"""The lines of ``rollouts/step_*.jsonl`` and ``eval/step_*.jsonl``: a response each."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from alignkit.engine.evaluation.statistics import category
from alignkit.engine.sampling.rollouts import Trajectory
from alignkit.engine.tokens import sampled_tokens
from alignkit.protocols import Example


def eval_row(trajectory: Trajectory, entropy: torch.Tensor, by: str = "") -> dict[str, Any]:
    """Return one line of ``eval/step_*.jsonl``; ``token_entropy`` is None without a token.

    ``by`` names the column that splits the accuracy; its value is kept under the same key.
    """
    return response_row(trajectory) | {
        **({"by": str(trajectory.example.extra[by])} if by else {}),
        "category": category(trajectory.reward),
        "token_entropy": float(entropy.mean()) if len(entropy) else None,
    }


def golds(example: Example) -> str | list[str]:
    """Return the gold answer, or all of them if any of several is right."""
    return list(example.answers) if example.also_accepted else example.answer


def response_row(trajectory: Trajectory) -> dict[str, Any]:
    """Return a response with everything needed to judge it by eye."""
    reward, completion, turns = trajectory.reward, trajectory.completion, trajectory.turns
    return {
        "prompt_id": trajectory.prompt_id,
        "group_id": trajectory.group_id,
        "id": trajectory.example.id,
        "question": trajectory.example.question,
        "gold": golds(trajectory.example),
        "prompt": trajectory.prompt_text,
        "response": completion.text,
        "reward": reward.total,
        **{f"{name}_reward": value for name, value in reward.parts.items()},
        "response_length": sampled_tokens(completion),
        "finish_reason": completion.finish_reason,
        **({"turns": [asdict(t) for t in turns], "cut": trajectory.cut} if turns else {}),
    }
