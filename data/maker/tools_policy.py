"""The tiny policy after it was shown the calculator: it calls it one time in four.

That is where reinforcement learning finds it: it knows how a call is written and that a result is
to be copied, and still works most problems out in its head, which comes out wrong.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from alignkit_hf import HfPolicy
from alignkit_losses import Reinforce
from alignkit_normalizers import TokenMean
from alignkit_optimizers import AdamW
from alignkit_prompts.template import TextTemplate, bundled
from maker import tools

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignkit.engine.tokens import TrainRow

STEPS = 300
ROWS_PER_STEP = 64
TOKEN_BUDGET = 4096


def make(data: Path, *, held_out: Container[str], seed: int, steps: int = STEPS) -> None:
    """Write ``tiny_policy_tools`` below ``data``, made of the ``tiny_policy`` there."""
    from alignkit.engine.learning.learner import Learner
    from alignkit.engine.learning.objective import Objective

    policy = HfPolicy(path=str(data / "tiny_policy"), device="cpu").build()
    adamw = AdamW(lr=1e-3, weight_decay=0.01, schedule="cosine", warmup_steps=steps // 20)
    learner = Learner(policy, adamw.build(), token_budget=TOKEN_BUDGET, total_steps=steps)
    objective = Objective.of(Reinforce().build(), TokenMean().build())  # cross-entropy
    rows = _rows(policy.tokenizer, held_out, Random(f"{seed} tools"))
    for step in range(1, steps + 1):
        metrics = learner.step([next(rows) for _ in range(ROWS_PER_STEP)], objective)
        if step % 50 == 0:
            print(f"tools: step {step}/{steps}  loss {metrics['loss']:.4f}", flush=True)
    policy.model.half()  # a run loads it as float32; here it takes half the room
    policy.save(data / "tiny_policy_tools")


def _rows(
    coder: PreTrainedTokenizerBase, held_out: Container[str], rng: Random
) -> Iterator[TrainRow]:
    """Yield solutions without end; what the calculator gives is read, not learned."""
    from alignkit.engine.tokens import TrainRow, encode

    template = TextTemplate(bundled("r1_zero.txt"))
    while True:
        problem = tools.draw(rng)
        if problem.question in held_out:
            continue
        parts = tools.solution(problem, called=rng.random() < tools.CALLED)
        ids = [(encode(coder, text), given) for text, given in parts]
        yield TrainRow(
            prompt_ids=encode(coder, template.render(problem.question)),
            response_ids=tuple(i for part, _ in ids for i in part),
            given=tuple(given for part, given in ids for _ in part),
        )
