"""The 2026 edition: hand-worked numbers, and the mistakes that must not pass them.

A check takes the function it examines, so the same numbers judge ours and the mutants.
"""

import inspect
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from alignkit import AlignkitError
from alignkit_cs336 import spring2025, spring2026


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def close(got, want, atol=1e-12):
    torch.testing.assert_close(got, f64(want), rtol=0, atol=atol)


SIGNATURES = {
    "compute_rollout_rewards": "reward_fn rollout_responses repeated_ground_truths",
    "compute_group_normalized_rewards": "raw_rewards group_size baseline=mean "
    "advantage_eps=1e-06 advantage_normalizer=std",
    "compute_policy_gradient_loss": "raw_rewards_or_advantages policy_log_probs "
    "importance_reweighting_method=none old_log_probs=None cliprange=None response_mask=None",
    "aggregate_loss_across_microbatch": "per_token_policy_gradient_loss mask "
    "loss_normalization=sequence normalization_constant=None",
}
STEP = """model tokenizer optimizer gradient_accumulation_steps max_grad_norm reward_fn
repeated_prompts rollout_responses repeated_ground_truths group_size baseline advantage_eps
advantage_normalizer importance_reweighting_method old_log_probs cliprange loss_normalization
normalization_constant"""


@pytest.mark.parametrize("name", SIGNATURES)
def test_names_and_keywords(name):
    parameters = inspect.signature(getattr(spring2026, name)).parameters.values()
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters]
    assert shown == SIGNATURES[name].split()


def test_names_of_the_step_and_the_server():
    assert list(inspect.signature(spring2026.grpo_train_step).parameters) == STEP.split()
    server = list(inspect.signature(spring2026.VLLMServer).parameters)
    assert server == ["model_id", "gpu", "seed", "gpu_memory_utilization"]


def test_what_both_editions_have_is_one_thing():
    new = {
        "compute_group_normalized_rewards",
        "compute_policy_gradient_loss",
        "compute_rollout_rewards",
        "aggregate_loss_across_microbatch",
        "grpo_train_step",
        "VLLMServer",
    }
    shared = set(spring2026.__all__) - new
    assert shared < set(spring2025.__all__)
    for name in shared:
        assert getattr(spring2026, name) is getattr(spring2025, name), name


# ---------------------------------------------------------------- rewards


def two_parts(response, truth):
    """Reward 1 or 0 for the answer; the format is right where the response is not empty."""
    right = float(response == truth)
    return {"reward": right, "format_reward": float(bool(response)), "answer_reward": right}


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


def rewards_mutant(total="reward", backwards=False, average=lambda x: sum(x) / len(x), ddof=1):
    def mutant(reward_fn, responses, truths):
        parts = [reward_fn(r, t) for r, t in zip(responses, truths, strict=True)]
        raw = torch.tensor([part[total] for part in parts])
        means = {f"mean_{k}": average([part[k] for part in parts]) for k in parts[0]}
        found = {"std_reward": float(raw.std(correction=ddof)), **means}
        found |= {"max_reward": float(raw.max()), "min_reward": float(raw.min())}
        return (raw.flip(0) if backwards else raw), found

    return mutant


def test_one_response_has_no_deviation():
    assert spring2026.compute_rollout_rewards(two_parts, ["4"], ["4"])[1]["std_reward"] == 0


# ---------------------------------------------------------------- advantages

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


def check_advantages(f):
    for (baseline, normalizer), want in ADVANTAGES.items():
        got, found = f(f64(RAW), 4, baseline, EPS, normalizer)
        close(got, want)
        assert found["mean_reward"] == 2
        assert found["signal"] == 1


def advantage_mutant(
    sign=1, ddof=1, rows=True, eps=lambda scale, eps: scale + eps, whole=False, swapped=False
):
    def mutant(raw, size, baseline="mean", advantage_eps=1e-6, normalizer="std"):
        groups = raw.view(-1, size) if rows else raw.view(size, -1).T
        own = groups.mean(1, keepdim=True)
        mean = raw.mean().expand_as(own) if whole else own
        scale = {"none": None, "mean": own, "std": groups.std(1, correction=ddof, keepdim=True)}
        if swapped:
            scale["mean"], scale["std"] = scale["std"], scale["mean"]
        values = groups - mean if baseline == "mean" else groups
        if (by := scale[normalizer]) is not None:
            values = values / eps(by, advantage_eps)
        flat = (values if rows else values.T).flatten()
        return sign * flat, {"mean_reward": float(raw.mean()), "signal": 1.0}

    return mutant


def test_group_normalization_has_the_defaults_of_grpo():
    got, _ = spring2026.compute_group_normalized_rewards(f64(RAW), 4)
    want, _ = spring2026.compute_group_normalized_rewards(f64(RAW), 4, "mean", 1e-6, "std")
    assert torch.equal(got, want)


@pytest.mark.parametrize("baseline", ["mean", "none"])
def test_equal_rewards_have_no_deviation_to_be_divided_by(baseline):
    got, found = spring2026.compute_group_normalized_rewards(f64([1.0] * 4), 2, baseline)
    assert got.tolist() == [0] * 4
    assert found["signal"] == 0


def test_maxrl_refuses_what_it_cannot_divide_by():
    with pytest.raises(AlignkitError, match="at least 0"):
        spring2026.compute_group_normalized_rewards(f64([-1.0, 1.0]), 2, "mean", 0.0, "mean")


# ---------------------------------------------------------------- losses

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


def _log_ratio(new, old, mask, kind):
    log_ratio = new - old
    if kind == "token":
        return log_ratio
    kept = torch.where(mask, log_ratio, 0) if kind != "padded" else log_ratio
    count = mask.sum(1, keepdim=True) if kind != "padded" else new.shape[1]
    return (kept.sum(1, keepdim=True) / (1 if kind == "sum" else count)).expand_as(new)


def loss_mutant(
    sign=-1,
    choose=torch.minimum,
    low=True,
    high=True,
    power=1,
    attached=True,
    sequence="mean",
    outside=False,
    flipped=False,
    unlogged=False,
):
    def mutant(advantages, new, method="none", old=None, cliprange=None, response_mask=None):
        weight = (advantages.view(-1, 1) if not flipped else advantages.flip(0).view(-1, 1)).to(new)
        zeros = torch.zeros_like(new).detach()
        if method == "none":
            return sign * weight * (new.exp() if unlogged else new), {"clip_fraction": zeros}
        mask = ALL if response_mask is None else response_mask
        kind = sequence if method == "gspo" else "token"
        ratio = (power * _log_ratio(new, old, mask, kind)).exp()
        ratio = ratio if attached else ratio.detach() * (1 + 0 * new)
        if method == "noclip":
            return sign * ratio * weight, {"clip_fraction": zeros}
        bounds = (1 - cliprange if low else None, 1 + cliprange if high else None)
        free, clipped = ratio * weight, ratio.clamp(*bounds) * weight
        fraction = clipped != free if outside else clipped < free
        return sign * choose(free, clipped), {"clip_fraction": fraction.double()}

    return mutant


def test_a_mask_that_is_not_given_is_all_tokens():
    whole, found, _ = loss_of(spring2026.compute_policy_gradient_loss, "gspo")
    given, _, _ = loss_of(spring2026.compute_policy_gradient_loss, "gspo", mask=ALL)
    assert torch.equal(whole, given)
    assert found["clip_fraction"].shape == (2, 3)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda f, n, x: f(x, n, "grpo", None, 0.2), "needs old_log_probs"),
        (lambda f, n, x: f(x, n, "noclip"), "needs old_log_probs"),
        (lambda f, n, x: f(x, n, "gspo", n), "needs cliprange"),
        (lambda f, n, x: f(x, n, "ppo", n, 0.2), "one of none, noclip, grpo, gspo"),
    ],
    ids=["grpo without old", "noclip without old", "gspo without cliprange", "unknown"],
)
def test_what_a_loss_lacks_is_named(call, said):
    with pytest.raises(ValueError, match=said):
        call(spring2026.compute_policy_gradient_loss, RATIO.log(), A)


# ---------------------------------------------------------------- aggregation

PER_TOKEN = f64([[1.0, 2.0, 4.0, float("nan")], [8.0, 16.0, float("inf"), 0.0], [3.0] * 4])
KEPT = torch.tensor([[True, True, True, False], [True, False, False, False], [False] * 4])


def check_aggregation(f):
    """Sequences 7 / 3, 8 and nothing, over three; sums 7, 8 and 0 over 5, over three."""
    for mask in (KEPT, KEPT.long()):
        close(f(PER_TOKEN, mask), (7 / 3 + 8) / 3)
        close(f(PER_TOKEN, mask, "sequence"), (7 / 3 + 8) / 3)
        close(f(PER_TOKEN, mask, "constant", 5.0), 15 / 5 / 3)


def aggregation_mutant(
    rows=lambda sums, counts, width: sums / counts.clamp(min=1),
    constant=lambda total, c: total / c,
    over=lambda x: x.mean(),
    masked=lambda x, m: torch.where(m, x, 0),
    axis=1,
):
    def mutant(per_token, mask, loss_normalization="sequence", normalization_constant=None):
        kept = masked(per_token, mask.bool())
        sums, counts = kept.sum(axis), mask.bool().sum(axis)
        if loss_normalization == "constant":
            return over(constant(sums, normalization_constant))
        return over(rows(sums, counts, mask.shape[axis]))

    return mutant


@pytest.mark.parametrize("constant", [None, 0.0, -1.0])
def test_a_constant_must_be_given(constant):
    with pytest.raises(ValueError, match="needs a normalization_constant above 0"):
        spring2026.aggregate_loss_across_microbatch(PER_TOKEN, KEPT, "constant", constant)


def test_an_unknown_normalization_is_refused():
    with pytest.raises(ValueError, match="one of sequence, constant"):
        spring2026.aggregate_loss_across_microbatch(PER_TOKEN, KEPT, "token")


# ---------------------------------------------------------------- the step


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


METHODS = {
    "reinforce": {},
    "std": {"advantage_normalizer": "std"},
    "constant": {"loss_normalization": "constant", "normalization_constant": 3.0},
    "grpo": {"importance_reweighting_method": "grpo", "cliprange": 0.2},
    "gspo": {"importance_reweighting_method": "gspo", "cliprange": 0.01},
}


def _moved(model, f, tokenizer, old=None, **changes):
    """Return the weights that one step leaves, of a copy of the model."""
    import copy

    model = copy.deepcopy(model)
    batch = {
        "repeated_prompts": ["1+1=", "1+1=", "Say", "Say", "Hm", "Hm"],
        "rollout_responses": ["ah", "bhhh", "a", "ab", "bb", "a man"],
        "tokenizer": tokenizer,
        "optimizer": torch.optim.SGD(model.parameters(), lr=1.0),
    }
    if "importance_reweighting_method" in changes:
        changes["old_log_probs"] = old
    _, found = step(f, model, **batch, **changes)
    assert all(p.grad is None for p in model.parameters())
    return dict(model.named_parameters()), found


@pytest.mark.parametrize("name", METHODS)
def test_responses_without_advantage_change_no_gradient(model, tokenizer, name):
    """A model of random weights; the written-out step computes every response."""
    generator = torch.Generator().manual_seed(0)
    old = -5.5 + 0.1 * torch.randn(6, 12, generator=generator, dtype=torch.float64)
    ours, found = _moved(model, spring2026.grpo_train_step, tokenizer, old, **METHODS[name])
    all_of_them, _ = _moved(model, step_mutant(drop=False), tokenizer, old, **METHODS[name])
    assert found["responses_trained_on"] == 4
    for key, value in ours.items():
        torch.testing.assert_close(value, all_of_them[key], rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_micro_batches_add_up(model, tokenizer, steps):
    ours, _ = _moved(
        model, spring2026.grpo_train_step, tokenizer, gradient_accumulation_steps=steps
    )
    whole, _ = _moved(model, step_mutant(), tokenizer, gradient_accumulation_steps=1)
    for key, value in ours.items():
        torch.testing.assert_close(value, whole[key], rtol=0, atol=1e-12)


def test_a_batch_without_signal_still_makes_a_step():
    """As with gradients of 0: weights decay, and nothing enters the model."""
    model = Bigram()
    with torch.no_grad():
        model.table.fill_(1.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    changes = {"rollout_responses": ["a"] * 6, "optimizer": optimizer}
    loss, found = step(spring2026.grpo_train_step, model, **changes)
    assert (float(loss), found["grad_norm"], found["responses_trained_on"]) == (0, 0, 0)
    close(model.table.detach(), [[0.95] * 4] * 4)
    assert model.seen == []
    assert model.table.grad is None


def test_a_batch_that_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match="6 responses do not divide into 4"):
        step(spring2026.grpo_train_step, Bigram(), gradient_accumulation_steps=4)


# ---------------------------------------------------------------- ours and the mutants

REWARDS, ADVANTAGE = "compute_rollout_rewards", "compute_group_normalized_rewards"
LOSS, AGGREGATE = "compute_policy_gradient_loss", "aggregate_loss_across_microbatch"
CHECKS = {
    "rewards": (check_rewards, REWARDS, rewards_mutant),
    "advantages": (check_advantages, ADVANTAGE, advantage_mutant),
    "reinforce": (check_reinforce, LOSS, loss_mutant),
    "noclip": (check_noclip, LOSS, loss_mutant),
    "grpo": (check_grpo, LOSS, loss_mutant),
    "gspo": (check_gspo, LOSS, loss_mutant),
    "aggregation": (check_aggregation, AGGREGATE, aggregation_mutant),
    "step": (check_step, "grpo_train_step", step_mutant),
    "step with everything": (check_step_with_everything, "grpo_train_step", step_mutant),
    "gradient clipping": (check_clipping, "grpo_train_step", step_mutant),
}
MUTANTS = {
    "format reward as the total": ("rewards", {"total": "format_reward"}),
    "rewards in reverse": ("rewards", {"backwards": True}),
    "sums of the parts": ("rewards", {"average": sum}),
    "largest of the parts": ("rewards", {"average": max}),
    "rewards' deviation with ddof 0": ("rewards", {"ddof": 0}),
    "advantages of the other sign": ("advantages", {"sign": -1}),
    "deviation with ddof 0": ("advantages", {"ddof": 0}),
    "tiled groups": ("advantages", {"rows": False}),
    "eps left out": ("advantages", {"eps": lambda scale, eps: scale}),
    "eps taken off": ("advantages", {"eps": lambda scale, eps: scale - eps}),
    "eps under the root": ("advantages", {"eps": lambda s, e: (s * s + e).sqrt()}),
    "eps as a lower bound": ("advantages", {"eps": lambda scale, eps: scale.clamp(min=eps)}),
    "mean of the batch": ("advantages", {"whole": True}),
    "mean and deviation swapped": ("advantages", {"swapped": True}),
    "log-probs of the other sign": ("reinforce", {"sign": 1}),
    "probabilities for log-probs": ("reinforce", {"unlogged": True}),
    "another row's advantage": ("reinforce", {"flipped": True}),
    "ratio of the other sign": ("noclip", {"sign": 1}),
    "ratio upside down": ("noclip", {"power": -1}),
    "ratio without gradient": ("noclip", {"attached": False}),
    "ratio squared": ("noclip", {"power": 2}),
    "clipped loss of the other sign": ("grpo", {"sign": 1}),
    "the larger branch": ("grpo", {"choose": torch.maximum}),
    "always the clipped branch": ("grpo", {"choose": lambda free, clipped: clipped}),
    "never the clipped branch": ("grpo", {"choose": lambda free, clipped: free}),
    "no lower bound": ("grpo", {"low": False}),
    "no upper bound": ("grpo", {"high": False}),
    "clip fraction of all outside": ("grpo", {"outside": True}),
    "one ratio per token": ("gspo", {"sequence": "token"}),
    "sum of log-ratios": ("gspo", {"sequence": "sum"}),
    "log-ratios of padding": ("gspo", {"sequence": "padded"}),
    "gspo's larger branch": ("gspo", {"choose": torch.maximum}),
    "gspo without an upper bound": ("gspo", {"high": False}),
    "gspo without gradient": ("gspo", {"attached": False}),
    "mean over padding": ("aggregation", {"rows": lambda sums, counts, width: sums / width}),
    "token mean": ("aggregation", {"rows": lambda s, c, w: s.sum().expand(3) / c.sum()}),
    "mean over the batch axis": ("aggregation", {"axis": 0}),
    "sum over responses": ("aggregation", {"over": lambda x: x.sum()}),
    "times the constant": ("aggregation", {"constant": lambda total, c: total * c}),
    "without the constant": ("aggregation", {"constant": lambda total, c: total}),
    "mask by product": ("aggregation", {"masked": lambda x, m: x * m}),
    "mask turned round": ("aggregation", {"masked": lambda x, m: torch.where(m, 0, x)}),
    "an empty response is NaN": ("aggregation", {"rows": lambda s, c, width: s / c}),
    "all responses in the model": ("step", {"drop": False}),
    "mean over the kept responses": ("step", {"over": "kept"}),
    "micro-batches not divided": ("step", {"over": "none"}),
    "gradients left": ("step", {"left": True}),
    "no step": ("step", {"moves": False}),
    "prompt tokens trained on": ("step", {"whole_mask": True}),
    "advantages in reverse": ("step", {"backwards": True}),
    "constant over the kept": ("step with everything", {"over": "kept"}),
    "gradient not clipped": ("gradient clipping", {"clip": False}),
    "a step before clipping": ("gradient clipping", {"every": True}),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKS)
def test_ours_passes(name):
    check, function, _ = CHECKS[name]
    check(getattr(spring2026, function))


@pytest.mark.parametrize("name", CHECKS)
def test_a_correct_rewrite_passes(name):
    """The mutants fail for what they change, not for being written out again."""
    check, _, rewritten = CHECKS[name]
    check(rewritten())


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_named_check_catches_the_mutant(mutant):
    name, change = MUTANTS[mutant]
    check, _, rewritten = CHECKS[name]
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(rewritten(**change))
