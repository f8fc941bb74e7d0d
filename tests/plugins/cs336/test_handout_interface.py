"""The assignment's functions: names, keywords, and hand-worked numbers."""

import inspect
import math

import pytest
import torch

import alignkit_cs336 as cs336
from by_hand import MASK, close, f64

SIGNATURES = {
    "tokenize_prompt_and_output": "prompt_strs output_strs tokenizer",
    "compute_entropy": "logits",
    "get_response_log_probs": "model input_ids labels return_token_entropy=False",
    "masked_normalize": "tensor mask dim=None normalize_constant=1.0",
    "masked_mean": "tensor mask dim=None",
    "sft_microbatch_train_step": "policy_log_probs response_mask gradient_accumulation_steps "
    "normalize_constant=1.0",
    "compute_group_normalized_rewards": "reward_fn rollout_responses repeated_ground_truths "
    "group_size advantage_eps normalize_by_std",
    "compute_naive_policy_gradient_loss": "raw_rewards_or_advantages policy_log_probs",
    "compute_grpo_clip_loss": "advantages policy_log_probs old_log_probs cliprange",
    "grpo_microbatch_train_step": "policy_log_probs response_mask gradient_accumulation_steps "
    "loss_type raw_rewards=None advantages=None old_log_probs=None cliprange=None",
    "get_packed_sft_dataset": "tokenizer dataset_path seq_length shuffle",
    "iterate_batches": "dataset batch_size shuffle",
    "parse_mmlu_response": "mmlu_example model_output",
    "parse_gsm8k_response": "model_output",
    "compute_per_instance_dpo_loss": "lm lm_ref tokenizer beta prompt response_chosen "
    "response_rejected",
    "r1_zero_reward_fn": "response ground_truth",
    "question_only_reward_fn": "response ground_truth",
    "init_vllm": "model_id device seed gpu_memory_utilization=0.85",
    "load_policy_into_vllm_instance": "policy llm",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_names_and_keywords(name):
    parameters = inspect.signature(getattr(cs336, name)).parameters.values()
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters]
    assert shown == SIGNATURES[name].split()


def test_longer_interfaces_begin_with_the_handouts():
    starts = {
        "compute_policy_gradient_loss": "policy_log_probs loss_type raw_rewards advantages "
        "old_log_probs cliprange",
        "evaluate_vllm": "vllm_model reward_fn prompts eval_sampling_params",
    }
    for name, wanted in starts.items():
        names = list(inspect.signature(getattr(cs336, name)).parameters)
        assert names[: len(wanted.split())] == wanted.split()


# ---------------------------------------------------------------- tokens and scores


def test_tokenize_with_a_real_tokenizer(tokenizer):
    got = cs336.tokenize_prompt_and_output(
        prompt_strs=["Q: ", "Q"], output_strs=["ab", "<answer>"], tokenizer=tokenizer
    )
    pad = tokenizer.pad_token_id
    q, colon, space, a, b, tag = tokenizer.convert_tokens_to_ids(
        ["Q", ":", "Ġ", "a", "b", "<answer>"]
    )
    assert got["input_ids"].tolist() == [[q, colon, space, a], [q, tag, pad, pad]]
    assert got["labels"].tolist() == [[colon, space, a, b], [tag, pad, pad, pad]]
    assert got["response_mask"].int().tolist() == [[0, 0, 1, 1], [1, 0, 0, 0]]


def test_an_empty_output_has_an_empty_mask(tokenizer):
    got = cs336.tokenize_prompt_and_output(["ab", "a"], ["", "b"], tokenizer)
    assert got["response_mask"].int().tolist() == [[0], [1]]


def test_entropy_by_hand():
    # (1/4, 3/4): ln 4 - 3/4 ln 3; uniform over 2 and over 3.
    logits = f64([[[0, math.log(3), -math.inf], [5, 5, -math.inf], [1e6, 1e6, 1e6]]])
    got = cs336.compute_entropy(logits)
    close(got, [[math.log(4) - 0.75 * math.log(3), math.log(2), math.log(3)]])


def test_response_log_probs_equal_full_log_softmax(model):
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    labels = ids.roll(-1, dims=1)
    full = torch.log_softmax(model(input_ids=ids).logits, -1)
    got = cs336.get_response_log_probs(model, ids, labels, return_token_entropy=True)
    assert set(got) == {"log_probs", "token_entropy"}
    want = full.gather(-1, labels[..., None])[..., 0]
    torch.testing.assert_close(got["log_probs"], want, rtol=0, atol=1e-10)
    entropy = -(full.exp() * full).sum(-1)
    torch.testing.assert_close(got["token_entropy"], entropy, rtol=0, atol=1e-10)
    assert got["log_probs"].requires_grad
    assert set(cs336.get_response_log_probs(model, ids, labels)) == {"log_probs"}


def test_response_log_probs_of_any_module_with_logits():
    class Bigram(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(5, 5)

        def forward(self, input_ids, **_):
            return type("Output", (), {"logits": self.table(input_ids)})

    bigram, ids = Bigram(), torch.tensor([[1, 2, 3]])
    got = cs336.get_response_log_probs(bigram, ids, ids)["log_probs"]
    want = torch.log_softmax(bigram.table.weight, -1)[[1, 2, 3], [1, 2, 3]][None]
    torch.testing.assert_close(got, want)


# ---------------------------------------------------------------- masked sums

TENSOR = f64([[1, 2, 30], [4, 50, 60]])


def test_masked_mean_by_hand():
    close(cs336.masked_mean(TENSOR, MASK, dim=1), [1.5, 4])
    close(cs336.masked_mean(TENSOR, MASK, dim=0)[:2], [2.5, 2])
    close(cs336.masked_mean(TENSOR, MASK), 7 / 3)
    assert cs336.masked_mean(TENSOR, MASK, dim=0)[2].isnan()
    assert cs336.masked_mean(TENSOR, torch.zeros_like(MASK)).isnan()


def test_masked_normalize_by_hand():
    close(cs336.masked_normalize(TENSOR, MASK, dim=1, normalize_constant=2.0), [1.5, 2])
    close(cs336.masked_normalize(TENSOR, MASK, dim=0), [5, 2, 0])
    close(cs336.masked_normalize(TENSOR, MASK.bool(), normalize_constant=7), 1)


@pytest.mark.parametrize("function", [cs336.masked_mean, cs336.masked_normalize])
def test_masked_values_do_not_leak(function):
    dirty = torch.where(MASK.bool(), TENSOR, math.nan)
    assert function(dirty, MASK, dim=1).isfinite().all()


def test_the_worked_example_of_the_handout():
    """Ratio 1, advantage 2, responses of 4 and 7 tokens, at most 7."""
    mask = torch.arange(7) < torch.tensor([[4], [7]])
    for function, values, gradients in (
        (cs336.masked_mean, [2, 2], [0.25, 1 / 7]),
        (
            lambda x, m, dim: cs336.masked_normalize(x, m, dim, normalize_constant=7.0),
            [8 / 7, 2],
            [1 / 7, 1 / 7],
        ),
    ):
        ratio = torch.ones(2, 7, dtype=torch.float64, requires_grad=True)
        per_row = function(ratio * 2, mask, dim=1)
        close(per_row.detach(), values)
        per_row.mean().backward()
        close(ratio.grad[:, 0], gradients)
        assert not ratio.grad[0, 4:].any()
