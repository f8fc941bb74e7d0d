"""The tiny policy: a Qwen2 of random weights, taught by alignkit's own learner.

It learns to solve the problems, and to answer in the form r1_zero asks for only some of the
time. That is the state reinforcement learning finds a base model in: the ability is there,
the form is a matter of chance, and a reward soon makes it a habit.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from alignkit_hf import HfPolicy
from alignkit_losses import Reinforce
from alignkit_normalizers import TokenMean
from alignkit_optimizers import AdamW
from alignkit_prompts.template import TextTemplate, bundled
from maker import traces
from maker.problems import draw, draw_distinct

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignkit.engine.tokens import TrainRow

WORDS_FROM = 5000
"""Problems whose questions and responses the tokenizer's words come from."""
R1_ZERO = 0.85
"""Share of rows under the r1_zero prompt; the others have the bare question for a prompt."""
TAGGED = 0.33
"""Share of r1_zero rows answered in the asked form; the others end "The answer is N ."."""
BOXED = 0.33
r"""Share of bare questions answered in ``\boxed{}``, likewise."""
ROWS_PER_STEP = 64
TOKEN_BUDGET = 4096
REPORT_EVERY = 100


def make(folder: Path, *, held_out: Container[str], steps: int, seed: int) -> None:
    """Write a trained policy to ``folder``; it never sees a question in ``held_out``."""
    from alignkit.engine.learning.learner import Learner
    from alignkit.engine.learning.objective import Objective

    _write_random(folder, seed)
    policy = HfPolicy(path=str(folder), device="cpu").build()
    adamw = AdamW(lr=3e-3, weight_decay=0.01, schedule="cosine", warmup_steps=steps // 20)
    learner = Learner(
        policy,
        adamw.build(),
        token_budget=TOKEN_BUDGET,
        total_steps=steps,
    )
    # With advantage 1 this is cross-entropy.
    objective = Objective.of(Reinforce().build(), TokenMean().build())
    rows = _rows(policy.tokenizer, held_out, Random(f"{seed} rows"))
    start = time.perf_counter()
    for step in range(1, steps + 1):
        metrics = learner.step([next(rows) for _ in range(ROWS_PER_STEP)], objective)
        if step % REPORT_EVERY == 0:
            took = time.perf_counter() - start
            print(f"step {step}/{steps}  loss {metrics['loss']:.4f}  {took:.0f} s", flush=True)
    policy.save(folder)


def _words(seed: int) -> Iterator[str]:
    """Yield the texts the tokenizer learns from: questions, and responses of every form."""
    rng = Random(f"{seed} words")
    for problem in draw_distinct(WORDS_FROM, rng):
        yield problem.question
        yield f" {problem.question}"  # as it stands in the r1_zero prompt
        yield from (traces.tagged(problem), traces.prose(problem), traces.boxed(problem))


def _texts(held_out: Container[str], rng: Random) -> Iterator[tuple[str, str]]:
    """Yield pairs of prompt and response without end."""
    template = TextTemplate(bundled("r1_zero.txt"))
    while True:
        problem = draw(rng)
        if problem.question in held_out:
            continue
        if rng.random() < R1_ZERO:
            write = traces.tagged if rng.random() < TAGGED else traces.prose
            yield template.render(problem.question), write(problem)
        else:
            write = traces.boxed if rng.random() < BOXED else traces.prose
            yield problem.question, write(problem)


def _rows(
    coder: PreTrainedTokenizerBase, held_out: Container[str], rng: Random
) -> Iterator[TrainRow]:
    from alignkit.engine.tokens import TrainRow, encode

    for prompt, response in _texts(held_out, rng):
        ids = (*encode(coder, response), coder.eos_token_id)
        yield TrainRow(prompt_ids=encode(coder, prompt), response_ids=ids)


def _write_random(folder: Path, seed: int) -> None:
    """Write a Qwen2 of random float32 weights, and its tokenizer."""
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    from maker import tokenizer

    coder = tokenizer.build(_words(seed))
    coder.save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=len(coder),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=coder.eos_token_id,
        pad_token_id=coder.pad_token_id,
    )
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(config)  # type: ignore[no-untyped-call]
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=[coder.eos_token_id], pad_token_id=coder.pad_token_id
    )
    model.save_pretrained(folder)
