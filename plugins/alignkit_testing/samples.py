"""What components are tried on: examples, responses, hostile text, a batch of log-probs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alignkit.dialogues import Message
from alignkit.protocols import Example, LossInputs

if TYPE_CHECKING:
    import torch

EXAMPLES: tuple[Example, ...] = (
    Example("sum", "What is 1 + 1?", "2"),
    Example("difference", "What is 12 - 5?", "7"),
    Example("product", "What is 6 * 7?", "42"),
    Example("fraction", "What is 3 divided by 4?", "3/4"),
)
"""What rewards are tried on unless a plugin's author gives examples of their own."""

DIALOGUE: tuple[Message, ...] = (
    {"role": "user", "content": "What is 1 + 2?"},
    {"role": "assistant", "content": "<think>\nOne more\n</think>\n\n3"},
    {"role": "user", "content": "And {twice} that?  "},
    {"role": "assistant", "content": "6", "reasoning_content": "3 + 3"},
)
"""A dialogue with thoughts in both forms."""

QUESTIONS = (
    "What is 1 + 1?",
    "a {brace}, {question}, {0}, {{two}} and an open {",
    r"a \backslash, \n, \1, \g<0> and \frac{1}{2}",
    "percent %s %d %(x)s %% and $dollar ${x} $1",
    "多语言 вопрос ½ \N{SNOWMAN} e\N{COMBINING ACUTE ACCENT}",
    "two\nlines\n\n    and an indent\tand a tab",
    "<think> tags </think> <answer>2</answer> and # Query: and ### Response:",
    "  spaces around  ",
    "long " * 2000,
    "?",
)
"""Questions that careless templating damages."""

HOSTILE = (
    "",
    " \n\t ",
    "\0",
    "a\0b </think> <answer>\0</answer>",
    "x" * 200_000,
    "</think> <answer>" + "9" * 100_000 + "</answer>",
    "(" * 5000 + ")" * 5000,
    r"\boxed{" * 3000,
    r"\boxed{" * 1000 + "1" + "}" * 1000,
    "<answer>" * 2000 + "</answer>" * 2000,
    "</answer><answer></think><think>",
    "</think> <answer>" + r"\frac{" * 500 + "1" + "}{2}" * 500 + "</answer>",
    "</think> <answer>9**9**9**9</answer>",
    r"\boxed{9^{9^{9^{9}}}}",
    r"</think> <answer>\frac{1}{0}</answer> \boxed{0/0}",
    "</think> <answer>nan</answer> \\boxed{1e999999}",
    "\N{RIGHT-TO-LEFT OVERRIDE}\N{ZERO WIDTH JOINER}½ ٣ 四 \N{REPLACEMENT CHARACTER} 🧮",
    "</think> <answer>½ ٣ 四</answer> \\boxed{🧮}",
    '__import__("os").abort() {0} %s ${x}',
)
"""Responses that models have written, or that break careless graders."""


def answers(examples: Sequence[Example]) -> list[tuple[str, Example]]:
    """Return responses to ``examples`` in several formats: right, wrong and none."""
    forms = (
        "{}",
        "</think> <answer>{}</answer>",
        "<think>so</think> <answer>{}</answer>",
        r"It is \boxed{{{}}}.",
        "The answer is {}.",
        "#### {}",
    )
    wrong = [*(e.answer for e in examples[1:]), "no idea"]
    return [
        (text, example)
        for example, other in zip(examples, wrong, strict=True)
        for text in (*(f.format(a) for f in forms for a in (example.answer, other)), "")
    ]


def example_loss_inputs(
    *, responses: int = 6, tokens: int = 5, seed: int = 0, dtype: torch.dtype | None = None
) -> LossInputs:
    """Return a small, fixed, off-policy micro-batch with every optional record.

    Responses have 1 to ``tokens`` tokens, the last one none; advantages run from -1 to 1.
    ``logprobs`` requires grad. Padding holds zeros. ``dtype`` is float64 unless given.
    """
    import torch

    dtype = dtype or torch.float64
    g = torch.Generator().manual_seed(seed)
    lengths = [tokens - i % tokens for i in range(responses - 1)] + [0]
    mask = torch.arange(tokens)[None, :] < torch.tensor(lengths)[:, None]  # (B, T)

    def logprobs(scale: float) -> Any:
        noise = scale * torch.randn(responses, tokens, generator=g, dtype=torch.float64)
        return (old * noise.exp()).where(mask, 0.0).to(dtype)  # stays below 0

    old = -0.1 - 2 * torch.rand(responses, tokens, generator=g, dtype=torch.float64)  # (B, T)
    return LossInputs(
        logprobs=logprobs(0.3).requires_grad_(),
        mask=mask,
        advantages=torch.linspace(-1, 1, responses, dtype=dtype)[:, None],  # (B, 1)
        old_logprobs=logprobs(0.0),
        ref_logprobs=logprobs(0.2),
        rollout_logprobs=logprobs(0.05),
    )
