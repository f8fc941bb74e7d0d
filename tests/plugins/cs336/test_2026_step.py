"""The training step of the 2026 edition."""

import pytest
import torch

from alignkit_cs336 import spring2026
from by_hand import close
from numbers_2026 import PROMPTS, Bigram, step, step_mutant

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


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_without_signal_does_not_call_the_model(model, tokenizer, name):
    """A transformer cannot take a batch of no rows, as the model of letters above can."""
    changes = METHODS[name] | {"rollout_responses": ["b", "bb"] * 3, "tokenizer": tokenizer}
    changes["optimizer"] = torch.optim.SGD(model.parameters(), lr=1.0)
    if "importance_reweighting_method" in changes:
        found = spring2026.tokenize_prompt_and_output(PROMPTS, ["b", "bb"] * 3, tokenizer)
        changes["old_log_probs"] = torch.zeros(found["labels"].shape)
    before = [p.detach().clone() for p in model.parameters()]
    loss, found = step(spring2026.grpo_train_step, model, **changes)
    assert (float(loss), found["responses_trained_on"]) == (0, 0)
    assert all(torch.equal(p, was) for p, was in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"repeated_prompts": ["Q"] * 5}, "got 5 repeated_prompts, 6 rollout_responses"),
        ({"repeated_ground_truths": ["?"] * 7}, "6 rollout_responses, 7 repeated_ground_truths"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be a finite number above 0, got 0"),
        ({"max_grad_norm": -1.0}, "max_grad_norm must be a finite number above 0, got -1"),
        ({"importance_reweighting_method": "grpo", "cliprange": 0.2}, "needs old_log_probs"),
        ({"importance_reweighting_method": "ppo"}, "one of none, noclip, grpo, gspo"),
    ],
)
@pytest.mark.parametrize("responses", [["a", "b"] * 3, ["b", "b"] * 3], ids=["signal", "none"])
def test_what_a_step_cannot_use_is_refused_with_or_without_signal(changes, said, responses):
    model = Bigram()
    with pytest.raises(ValueError, match=said):
        step(spring2026.grpo_train_step, model, **{"rollout_responses": responses} | changes)
    assert bool((model.table == 0).all())


@pytest.mark.parametrize("shape", [(5, 3), (7, 3), (6, 2), (6,)], ids=str)
def test_old_log_probs_of_another_batch_are_refused(shape):
    """The batch's labels are (6, 3): one letter of prompt and up to three of response, less one."""
    changes = {"importance_reweighting_method": "noclip", "old_log_probs": torch.zeros(shape)}
    with pytest.raises(ValueError, match=r"old_log_probs must be \(6, 3\)"):
        step(spring2026.grpo_train_step, Bigram(), **changes)


def test_a_batch_that_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match="6 responses do not divide into 4"):
        step(spring2026.grpo_train_step, Bigram(), gradient_accumulation_steps=4)
