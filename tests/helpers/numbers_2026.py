"""Numbers worked out by hand for the 2026 edition: each check takes the function it examines."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from alignkit_cs336 import spring2026
from by_hand import close, f64


def two_parts(response, truth):
    """Reward 1 or 0 for the answer; the format is right where the response is not empty."""
    right = float(response == truth)
    return {"reward": right, "format_reward": float(bool(response)), "answer_reward": right}


RAW = [1.0, 0.0, 0.0, 3.0, 2.0, 2.0, 2.0, 6.0]

EPS = 1e-3  # large enough to show where it is added

ROOT = math.sqrt(2) + EPS

ADVANTAGES = {  # groups of four: means 1 and 3, deviations (ddof 1) √2 and 2
    ("mean", "none"): [0, -1, -1, 2, -1, -1, -1, 3],
    ("none", "none"): RAW,
    ("mean", "std"): [0, *[-1 / ROOT] * 2, 2 / ROOT, *[-1 / (2 + EPS)] * 3, 3 / (2 + EPS)],
    ("none", "std"): [1 / ROOT, 0, 0, 3 / ROOT, *[2 / (2 + EPS)] * 3, 6 / (2 + EPS)],
    ("mean", "mean"): [
        *(x / (1 + EPS) for x in (0, -1, -1, 2)),
        *(x / (3 + EPS) for x in (-1, -1, -1, 3)),
    ],
    ("none", "mean"): [*(x / (1 + EPS) for x in RAW[:4]), *(x / (3 + EPS) for x in RAW[4:])],
}

RATIO = f64([[1.5, 0.5, 1.0], [1.5, 0.5, 1.1]])

A = f64([2.0, -1.0])

ALL = torch.ones(2, 3, dtype=torch.bool)


def loss_of(f, method, *, ratio=RATIO, advantages=A, mask=None, clip=0.2):
    """Return the loss, its metadata and its gradient; old log-probs are -2, so p = r / e²."""
    new = (ratio.log() - 2).requires_grad_()
    old = torch.full_like(ratio, -2.0)
    loss, found = f(advantages, new, method, old, clip, mask)
    (gradient,) = torch.autograd.grad(loss[ALL if mask is None else mask].sum(), new)
    return loss.detach(), found, gradient


PER_TOKEN = f64([[1.0, 2.0, 4.0, float("nan")], [8.0, 16.0, float("inf"), 0.0], [3.0] * 4])

KEPT = torch.tensor([[True, True, True, False], [True, False, False, False], [False] * 4])


class Codes:
    """Ids by letter: Q 1, a 2, b 3; 0 is padding."""

    pad_token_id = 0
    eos_token_id = 0

    def encode(self, text, add_special_tokens=True):
        return ["Qab".index(c) + 1 for c in text]


class Bigram(nn.Module):
    """Logits by the last token alone, all equal at first: every token has probability 1/4."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(4, 4, dtype=torch.float64))
        self.seen = []

    def forward(self, input_ids):
        self.seen += input_ids.tolist()
        return SimpleNamespace(logits=self.table[input_ids])


def says_a(response, truth):
    """Reward 1 for a response that begins with a."""
    return {"reward": float(response[0] == "a"), "format_reward": 1.0, "answer_reward": 0.0}


PROMPTS, SAID = ["Q"] * 6, ["a", "bb", "a", "a", "b", "bbb"]
"""Three groups of two: rewards 1 0, 1 1 and 0 0. Only the first compares anything."""


def step(f, model, **changes):
    defaults = {
        "model": model,
        "tokenizer": Codes(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=1.0),
        "gradient_accumulation_steps": 2,
        "max_grad_norm": 100.0,
        "reward_fn": says_a,
        "repeated_prompts": PROMPTS,
        "rollout_responses": SAID,
        "repeated_ground_truths": ["?"] * 6,
        "group_size": 2,
        "baseline": "mean",
        "advantage_eps": 1e-6,
        "advantage_normalizer": "none",
        "importance_reweighting_method": "none",
        "old_log_probs": None,
        "cliprange": None,
        "loss_normalization": "sequence",
        "normalization_constant": None,
    }
    return f(**{**defaults, **changes})


def step_mutant(
    drop=True, over="all", clip=True, left=False, moves=True, whole_mask=False, backwards=False,
    every=False,
):  # fmt: skip
    """Write the step again with 2026's other functions; the defaults do it right."""
    e = spring2026

    def mutant(model, tokenizer, optimizer, gradient_accumulation_steps, max_grad_norm, **x):
        raw, judged = e.compute_rollout_rewards(
            x["reward_fn"], x["rollout_responses"], x["repeated_ground_truths"]
        )
        A, grouped = e.compute_group_normalized_rewards(
            raw, x["group_size"], x["baseline"], x["advantage_eps"], x["advantage_normalizer"]
        )
        A = A.flip(0) if backwards else A
        found = e.tokenize_prompt_and_output(
            x["repeated_prompts"], x["rollout_responses"], tokenizer
        )
        ids, labels, mask = (found[k] for k in ("input_ids", "labels", "response_mask"))
        mask = torch.ones_like(mask) if whole_mask else mask
        kept = torch.nonzero(A != 0).flatten() if drop else torch.arange(len(A))
        total, clipped, tokens, entropy = 0.0, 0.0, 0, 0.0
        for rows in kept.split(len(A) // gradient_accumulation_steps):
            width = int(mask[rows].any(0).nonzero().max()) + 1
            m = mask[rows, :width]
            got = e.get_response_log_probs(model, ids[rows, :width], labels[rows, :width], True)
            old = x["old_log_probs"]
            per_token, metrics = e.compute_policy_gradient_loss(
                A[rows].double(), got["log_probs"], x["importance_reweighting_method"],
                None if old is None else old[rows, :width], x["cliprange"], m,
            )  # fmt: skip
            loss = e.aggregate_loss_across_microbatch(
                per_token, m, x["loss_normalization"], x["normalization_constant"]
            )
            share = {"all": len(rows) / len(A), "kept": len(rows) / len(kept), "none": 1.0}[over]
            (loss * share).backward()
            total += float(loss.detach()) * share
            clipped += float(metrics["clip_fraction"][m].sum())
            entropy += float(got["token_entropy"][m].sum())
            tokens += int(m.sum())
            if every:
                optimizer.step()
        norm = nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm if clip else 1e9)
        if moves and not every:
            optimizer.step()
        if not left:
            optimizer.zero_grad()
        counts = {"grad_norm": float(norm), "responses_trained_on": len(kept)}
        means = {"clip_fraction": clipped / tokens, "token_entropy": entropy / tokens}
        return total, judged | grouped | counts | means

    return mutant


def check_rewards(f):
    """Responses right, wrong, right, empty: rewards 1 0 1 0, formats 1 1 1 0."""
    got, found = f(two_parts, ["4", "5", "7", ""], ["4", "9", "7", "1"])
    assert got.dtype == torch.float32
    assert got.tolist() == [1, 0, 1, 0]
    assert found["mean_reward"] == 0.5
    assert found["mean_format_reward"] == 0.75
    assert found["mean_answer_reward"] == 0.5
    assert found["std_reward"] == pytest.approx(math.sqrt(1 / 3), abs=1e-7)  # in float32
    assert (found["max_reward"], found["min_reward"]) == (1, 0)


def check_advantages(f):
    for (baseline, normalizer), want in ADVANTAGES.items():
        got, found = f(f64(RAW), 4, baseline, EPS, normalizer)
        close(got, want)
        assert found["mean_reward"] == 2
        assert found["signal"] == 1


def check_reinforce(f):
    """-A log p: log p = log r - 2; the gradient is -A."""
    loss, found, gradient = loss_of(f, "none")
    want = [[-a * (math.log(r) - 2) for r in row] for a, row in zip((2, -1), RATIO, strict=True)]
    close(loss, want)
    close(gradient, [[-2.0] * 3, [1.0] * 3])
    assert not found["clip_fraction"].any()
    assert found["clip_fraction"].shape == (2, 3)


def check_noclip(f):
    """-r A, and so is its gradient."""
    loss, found, gradient = loss_of(f, "noclip")
    want = [[-3.0, -1.0, -2.0], [1.5, 0.5, 1.1]]
    close(loss, want)
    close(gradient, want)
    assert not found["clip_fraction"].any()


def check_grpo(f):
    """Bounds 0.8 and 1.2. A > 0 is clipped above only, A < 0 below only."""
    loss, found, gradient = loss_of(f, "grpo")
    close(loss, [[-2.4, -1.0, -2.0], [1.5, 0.8, 1.1]])
    close(gradient, [[0.0, -1.0, -2.0], [1.5, 0.0, 1.1]])
    assert found["clip_fraction"].tolist() == [[1, 0, 0], [0, 1, 0]]
    assert not found["clip_fraction"].requires_grad


def check_gspo(f):
    """Ratios 4 and 1 of two tokens: √4 = 2 for both, clipped to 1.2 where A > 0.

    The third token is no response's. Its gradient is s A / 2 at each of the two.
    """
    ratio = f64([[4.0, 1.0, 7.0], [4.0, 1.0, 7.0], [1.21, 1.0, 7.0]])
    mask = torch.tensor([[True, True, False]] * 3)
    loss, found, gradient = loss_of(f, "gspo", ratio=ratio, advantages=f64([1, -1, 1]), mask=mask)
    close(loss[:, :2], [[-1.2] * 2, [2.0] * 2, [-1.1] * 2])
    # Both tokens carry the sequence's loss, and each is half of the exponent.
    close(gradient, [[0.0] * 3, [2.0, 2.0, 0.0], [-1.1, -1.1, 0.0]])
    assert found["clip_fraction"][:, :2].tolist() == [[1, 1], [0, 0], [0, 0]]


def check_aggregation(f):
    """Sequences 7 / 3, 8 and nothing, over three; sums 7, 8 and 0 over 5, over three."""
    for mask in (KEPT, KEPT.long()):
        close(f(PER_TOKEN, mask), (7 / 3 + 8) / 3)
        close(f(PER_TOKEN, mask, "sequence"), (7 / 3 + 8) / 3)
        close(f(PER_TOKEN, mask, "constant", 5.0), 15 / 5 / 3)


def check_step(f):
    """Advantages ½ -½ 0 0 0 0; log p = -log 4 each: -(½ - ½) log p sums to 0.

    d(-A log p)/d logits = -A (e_t - ¼), over 6 responses: row Q gets ½ / 6 of e_a and, from bb's
    first token at half weight, ¼ / 6 less of e_b; row b from bb's second as much.
    """
    model = Bigram()
    loss, found = step(f, model)
    assert float(loss) == pytest.approx(0.0, abs=1e-12)
    a, b = 0.5 / 6, -0.25 / 6
    quarter = (a + b) / 4
    rows = [[0.0] * 4, [-quarter, -quarter, a - quarter, b - quarter], [0.0] * 4]
    rows.append([-b / 4, -b / 4, -b / 4, b - b / 4])
    close(model.table.detach(), rows)
    assert model.table.grad is None
    assert found["grad_norm"] == pytest.approx(float(f64(rows).norm()), abs=1e-12)
    assert found["mean_reward"] == 0.5
    assert found["responses_trained_on"] == 2
    assert found["signal"] == pytest.approx(1 / 3)
    assert found["token_entropy"] == pytest.approx(math.log(4), abs=1e-12)
    assert model.seen == [[1, 2], [1, 3]]  # each once, in one pass: nobody else entered


def check_step_with_everything(f):
    """A constant of 2, weights without baseline and the ratio 2 against old log-probs -log 8.

    Rewards 1 0 1 1 0 0 are the advantages; -r A / 2 over 6 responses: loss -3 (2 / 2) / 6 = -½.
    Clipped to 1.5: -3 (1.5 / 2) / 6, and no gradient.
    """
    old = torch.full((6, 3), -math.log(8), dtype=torch.float64)
    given = {"baseline": "none", "loss_normalization": "constant", "normalization_constant": 2.0}
    model = Bigram()
    loss, found = step(f, model, importance_reweighting_method="noclip", old_log_probs=old, **given)
    assert float(loss) == pytest.approx(-0.5, abs=1e-12)
    close(model.table.detach()[1], [-1 / 8, -1 / 8, 3 / 8, -1 / 8])
    assert found["clip_fraction"] == 0
    model = Bigram()
    clip = {"importance_reweighting_method": "grpo", "cliprange": 0.5}
    loss, found = step(f, model, old_log_probs=old, **clip, **given)
    assert float(loss) == pytest.approx(-3 * 0.75 / 6, abs=1e-12)
    assert found["clip_fraction"] == 1
    assert not model.table.any()


def check_clipping(f):
    """A gradient is cut to norm 0.01 before the step, and reported as it was."""
    model = Bigram()
    _, found = step(f, model, max_grad_norm=0.01)
    assert float(model.table.detach().norm()) == pytest.approx(0.01, abs=1e-6)
    assert found["grad_norm"] > 0.05
