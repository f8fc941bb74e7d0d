"""The mistakes that assignments were handed in with: each must make the named check fail.

A check takes the functions it examines, so the same numbers judge ours and the mutants.
"""

import json
import math

import pytest
import torch

import alignkit_cs336 as ours

# ---------------------------------------------------------------- the checks


def length_reward(response, truth):
    """Letters of the response: rewards that differ, by hand."""
    return {"reward": float(len(response)), "format_reward": 1.0, "answer_reward": 0.0}


RESPONSES = ["a", "", "", "aaa", "aa", "aa", "aa", "aaaaaa"]  # rewards 1 0 0 3, 2 2 2 6


def check_group_normalization(f):
    """Groups of four: means 1, 3; deviations (ddof 1) √2, 2; each plus 1e-6."""
    got, raw, _ = f(length_reward, RESPONSES, ["x"] * 8, 4, 1e-6, True)
    assert raw.tolist() == [1, 0, 0, 3, 2, 2, 2, 6]
    a, b = math.sqrt(2) + 1e-6, 2 + 1e-6
    want = torch.tensor([0, -1 / a, -1 / a, 2 / a, -1 / b, -1 / b, -1 / b, 3 / b])
    torch.testing.assert_close(got, want, rtol=0, atol=5e-7)


LOG_PROBS = torch.tensor([[-1.0, -2.0, -3.0, -4.0], [-0.5, -0.25, -9.0, -9.0]]).double()
MASK = torch.tensor([[False, True, True, True], [True, True, False, False]])
ADVANTAGES = torch.tensor([[2.0], [-1.0]]).double()


def check_grpo_microbatch(f):
    """Row means of -A log p: 2 (2 + 3 + 4) / 3 = 6, -(0.5 + 0.25) / 2; their mean over 4."""
    log_probs = LOG_PROBS.clone().requires_grad_()
    loss, _ = f(
        policy_log_probs=log_probs,
        response_mask=MASK,
        gradient_accumulation_steps=4,
        loss_type="reinforce_with_baseline",
        advantages=ADVANTAGES,
    )
    assert loss.item() == pytest.approx((6 - 0.375) / 2 / 4, abs=1e-12)
    # -A / tokens of the row / 2 rows / 4 steps.
    row = [[0.0] + [-2 / 24] * 3, [1 / 16] * 2 + [0.0] * 2]
    want = torch.tensor(row, dtype=torch.float64)
    torch.testing.assert_close(log_probs.grad, want, rtol=0, atol=1e-12)


def check_metrics(f):
    """Ratios 1.5 or 1 against a range of 0.2, advantage 1: 1.5 is clipped."""
    new = torch.tensor([[1.5, 1.0, 1.5, 1.0], [1.5, 1.0, 1.0, 1.0]], dtype=torch.float64).log()
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    _, metadata = f(
        policy_log_probs=new.requires_grad_(),
        response_mask=mask,
        gradient_accumulation_steps=1,
        loss_type="grpo_clip",
        advantages=torch.ones(2, 1).double(),
        old_log_probs=torch.zeros(2, 4).double(),
        cliprange=0.2,
    )
    # Three of four tokens. Over padding: 3 / 8; mean of the rows' means: (2 / 3 + 1) / 2.
    assert float(metadata["clip_fraction"]) == pytest.approx(3 / 4, abs=1e-12)
    want = 3 * (0.5 - math.log(1.5)) / 4
    assert float(metadata["approx_kl"]) == pytest.approx(want, abs=1e-12)


class Letters:
    """A tokenizer whose ids are character codes: a test can be read."""

    pad_token_id = 0
    eos_token_id = 1
    bos_token_id = 2

    def encode(self, text, add_special_tokens=True):
        framed = [self.bos_token_id] if add_special_tokens else []
        return framed + [ord(c) for c in text]


def codes(text):
    return [0 if c == "." else ord(c) for c in text]


def check_tokenize(f):
    """Rows Qabc and QRS: padded to 4, shifted to 3."""
    got = f(["Q", "QR"], ["abc", "S"], Letters())
    assert set(got) == {"input_ids", "labels", "response_mask"}
    assert got["input_ids"].tolist() == [codes("Qab"), codes("QRS")]
    # The pad id where there is no label; -100 would be another interface.
    assert got["labels"].tolist() == [codes("abc"), codes("RS.")]
    assert got["response_mask"].tolist() == [[True, True, True], [False, True, False]]
    assert got["labels"].dtype == got["input_ids"].dtype == torch.int64
    assert got["response_mask"].dtype == torch.bool


def check_packing(f, path):
    """21 ids cut by 5: (21 - 1) // 5 = 4 windows. 20 ids cut by 5: 3, though 20 // 5 is 4."""
    for extra, windows in ((0, 3), (1, 4)):
        template = len(ours.batches.alpaca_document("", "")) + 2  # and both end ids
        fill = -template % 5 + extra
        path.write_text(json.dumps({"prompt": "", "response": "r" * fill}) + "\n")
        items = f(Letters(), path, 5, False)
        n = template + fill
        assert n % 5 == extra
        assert len(items) == (n - 1) // 5 == n // 5 - 1 + extra, windows
        last = items[len(items) - 1]
        assert len(last["input_ids"]) == len(last["labels"]) == 5
        assert last["labels"][:-1].tolist() == last["input_ids"][1:].tolist()
        with pytest.raises(IndexError):
            items[len(items)]


# ---------------------------------------------------------------- the mutants


def _normalized(groups_of, correction, eps, whole=lambda g: g.flatten()):
    def mutant(reward_fn, responses, truths, group_size, advantage_eps, normalize_by_std):
        pairs = zip(responses, truths, strict=True)
        raw = torch.tensor([reward_fn(r, t)["reward"] for r, t in pairs])
        g = groups_of(raw, group_size)
        std = g.std(dim=1, correction=correction, keepdim=True)
        return whole((g - g.mean(dim=1, keepdim=True)) / (std + eps)), raw, {}

    return mutant


def rows_of(raw, size):
    return raw.view(-1, size)


def columns_of(raw, size):
    return raw.view(size, -1).T


def _microbatch(normalize, mask_of=lambda mask: mask, average=None):
    def mutant(
        policy_log_probs,
        response_mask,
        gradient_accumulation_steps,
        loss_type,
        raw_rewards=None,
        advantages=None,
        old_log_probs=None,
        cliprange=None,
    ):
        per_token, metrics = ours.compute_policy_gradient_loss(
            policy_log_probs, loss_type, raw_rewards, advantages, old_log_probs, cliprange
        )
        mask = mask_of(response_mask)
        loss = normalize(per_token, mask) / gradient_accumulation_steps
        loss.backward()
        return loss, {name: average(v, mask) for name, v in metrics.items()} if average else {}

    return mutant


def sequence_mean(per_token, mask):
    return ours.masked_mean(per_token, mask, dim=1).mean()


def _tokenized(change):
    def mutant(prompts, outputs, tokenizer):
        return change(dict(ours.tokenize_prompt_and_output(prompts, outputs, tokenizer)))

    return mutant


def label_minus_100(got):
    return got | {"labels": got["labels"].masked_fill(~got["response_mask"], -100)}


def mask_of_inputs(got):
    """The mask before the shift: one place late, where inputs are instead of labels."""
    mask = got["response_mask"]
    return got | {"response_mask": torch.cat([torch.zeros_like(mask[:, :1]), mask[:, :-1]], 1)}


def mask_one_early(got):
    mask = got["response_mask"]
    return got | {"response_mask": mask | torch.cat([mask[:, 1:], mask[:, :1]], 1)}


def packed_without_label_room(tokenizer, path, seq_length, shuffle):
    class Packed(ours.batches.PackedDataset):
        def __len__(self):
            return len(self.ids) // self.seq_length

    return Packed(ours.get_packed_sft_dataset(tokenizer, path, seq_length, shuffle).ids, seq_length)


def over_padding(values, mask):
    return values.mean()


GRPO = "grpo_microbatch_train_step"
ADVANTAGE = "compute_group_normalized_rewards"
TOKENIZE = "tokenize_prompt_and_output"
PACK = "get_packed_sft_dataset"
CHECKS = {
    "group normalization": (check_group_normalization, ADVANTAGE),
    "grpo micro-batch": (check_grpo_microbatch, GRPO),
    "metrics": (check_metrics, GRPO),
    "tokenize": (check_tokenize, TOKENIZE),
    "packing": (check_packing, PACK),
}
MUTANTS = {
    "standard deviation with ddof 0": ("group normalization", _normalized(rows_of, 0, 1e-6)),
    "tiled groups": (
        "group normalization",
        _normalized(columns_of, 1, 1e-6, whole=lambda g: g.T.flatten()),
    ),
    "eps of 1e-4": ("group normalization", _normalized(rows_of, 1, 1e-4)),
    "token mean instead of sequence mean": ("grpo micro-batch", _microbatch(ours.masked_mean)),
    "mean over padding": (
        "grpo micro-batch",
        _microbatch(lambda x, m: torch.where(m, x, 0).mean(1).mean()),
    ),
    "sum over tokens": (
        "grpo micro-batch",
        _microbatch(lambda x, m: ours.masked_normalize(x, m, 1).mean()),
    ),
    "not divided by the accumulation steps": (
        "grpo micro-batch",
        _microbatch(lambda x, m: 4 * sequence_mean(x, m)),
    ),
    "mask off by one in the step": (
        "grpo micro-batch",
        _microbatch(sequence_mean, mask_of=lambda m: m.roll(1, dims=1)),
    ),
    "metrics over padding": ("metrics", _microbatch(sequence_mean, average=over_padding)),
    "labels of -100": ("tokenize", _tokenized(label_minus_100)),
    "mask off by one, late": ("tokenize", _tokenized(mask_of_inputs)),
    "mask off by one, early": ("tokenize", _tokenized(mask_one_early)),
    "n // L packing": ("packing", packed_without_label_room),
}


def run(check, function, tmp_path):
    extra = (tmp_path / "rows.jsonl",) if check is check_packing else ()
    check(function, *extra)


@pytest.mark.parametrize("name", CHECKS)
def test_ours_passes(name, tmp_path):
    check, function = CHECKS[name]
    run(check, getattr(ours, function), tmp_path)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_named_check_catches_the_mutant(mutant, tmp_path):
    name, function = MUTANTS[mutant]
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        run(CHECKS[name][0], function, tmp_path)


def test_a_correct_rewrite_passes():
    """The mutants fail for what they change, not for being written out again."""
    check_group_normalization(_normalized(rows_of, 1, 1e-6))
    check_grpo_microbatch(_microbatch(sequence_mean))
    check_metrics(_microbatch(sequence_mean, average=ours.masked_mean))
    check_tokenize(_tokenized(lambda got: got))
