"""Packed rows give what each row gives alone, to rounding, gradients included (float64)."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit.engine.forward.checkpointing import checkpoint, keep_activations
from alignkit.engine.forward.logprobs import cut, response_logprobs
from alignkit.engine.forward.packable import can_pack, chosen
from alignkit.engine.forward.packed import Packed, attending, shared_batches
from alignkit.engine.tokens import TrainRow

ROWS = [
    TrainRow((3, 4, 5), (6, 7, 8, 9)),
    TrainRow((3, 4, 5), (6,)),  # nothing but the shared prompt predicts it
    TrainRow((12, 13), (3, 4, 5)),  # a prompt of its own
    TrainRow((3, 4, 5), ()),
    TrainRow((9,), tuple(range(2, 22))),  # far longer than the others: another block
    TrainRow((9,), (7, 7)),
    TrainRow((3, 4, 5), (9, 8)),
]


def one_by_one(model, rows):
    """Return the log-probs of every row's response by full logits, and the gradients."""
    found = []
    for row in rows:
        ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
        full = torch.log_softmax(model(input_ids=ids).logits[0], -1)
        first = len(row.prompt_ids) - 1
        found += [full[first + i, token] for i, token in enumerate(row.response_ids)]
    found = torch.stack(found)
    return found, torch.autograd.grad(found @ weights_of(found), list(model.parameters()))


def weights_of(values):
    """Return weights that differ, so that a swap of two tokens shows."""
    return torch.linspace(-1, 2, len(values), dtype=values.dtype)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="grouped-query attention"),
        pytest.param({"num_key_value_heads": 2, "head_dim": 12}, id="all heads, of 12"),
    ],
)
def test_packed_rows_and_gradients_are_those_of_each_row_alone(tiny_policy, changes):
    policy = tiny_policy(**changes)
    assert can_pack(policy.model)
    logprobs, _, mask = response_logprobs(policy, ROWS)
    got = logprobs[mask]
    grads = torch.autograd.grad(got @ weights_of(got), list(policy.model.parameters()))
    want, wanted = one_by_one(policy.model, ROWS)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-10)
    assert mask.sum(1).tolist() == [4, 1, 3, 0, 20, 2, 2]
    for a, b in zip(grads, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_a_shared_prompt_is_there_once_and_no_padding_is(tiny_policy):
    packed = Packed.of(ROWS)
    # Prompts (3, 4, 5) and (9,) once: 4. Responses but for the last token: 3 + 0 + 19 + 1 + 1.
    # The row on its own: 2 + 2. Padded it would be 7 x 20.
    assert packed.input_ids.shape == (1, 4 + 24 + 4)
    # Whole rows and prompts of 4, 3 and 1 tokens, responses of 19, 3, 1 and 1: those that are
    # at least half as long as the block's first go with it.
    assert [tuple(b.queries.shape) for b in packed.blocks] == [
        (2, 4),
        (1, 1),
        (1, 19),
        (1, 3),
        (2, 1),
    ]


def test_attention_is_put_back_when_the_model_fails(tiny_policy):
    model = tiny_policy().model
    before = model.config._attn_implementation
    with pytest.raises(IndexError), attending(model, ()):
        model(input_ids=torch.tensor([[1000]]))
    assert model.config._attn_implementation == before


# ---------------------------------------------------------------- which models qualify

SLIDING = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 0}


def test_a_model_with_a_sliding_window_is_not_packed_and_still_right(tiny_policy):
    policy = tiny_policy(**SLIDING)
    assert not can_pack(policy.model)
    logprobs, _, mask = response_logprobs(policy, ROWS)
    want, _ = one_by_one(policy.model, ROWS)
    torch.testing.assert_close(logprobs[mask], want, rtol=0, atol=1e-10)


def test_a_model_that_mixes_tokens_outside_attention_is_not_packed(tiny_policy):
    model = tiny_policy().model
    model.model.layers[0].register_forward_hook(lambda _, args, out: out + out.cumsum(1))
    assert not can_pack(model)


def test_a_double_model_that_rounds_inside_is_not_packed(tiny_policy):
    """Its gradients would differ from those of padded rows in the ninth digit."""
    model = tiny_policy().model
    for module in model.modules():
        if type(module).__name__ == "Qwen2RMSNorm":
            del module.forward  # back to transformers' own, in float32
    assert not can_pack(model)
    assert can_pack(model.float())


def test_a_checkpointed_model_is_not_packed(tiny_policy):
    """The backward pass runs attention again, when the blocks are no longer known."""
    policy = tiny_policy()
    assert can_pack(policy.model)
    checkpoint(policy.model)
    policy.model.train()
    assert not can_pack(policy.model)
    logprobs, _, mask = response_logprobs(policy, ROWS)
    got = logprobs[mask]
    grads = torch.autograd.grad(got @ weights_of(got), list(policy.model.parameters()))
    keep_activations(policy.model)
    _, wanted = one_by_one(policy.model, ROWS)
    for a, b in zip(grads, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_asking_leaves_training_mode_as_it_was(tiny_policy):
    model = tiny_policy().model.train()
    model.lm_head.eval()
    assert can_pack(model)
    assert model.training
    assert not model.lm_head.training


# ---------------------------------------------------------------- what is said of it


def test_the_pass_taken_is_told_with_its_reason(tiny_policy):
    assert chosen(tiny_policy()) == (
        "packed, shared prompts once; attention by torch's usual kernels, not torch's "
        "variable-length kernel: it needs a CUDA device"
    )
    windowed = chosen(tiny_policy(**SLIDING))
    assert windowed.startswith("padded to the longest; not packed: its layers are of the kinds ")
    policy = tiny_policy()
    policy.model.model.layers[0].register_forward_hook(lambda _, args, out: out + out.cumsum(1))
    assert re.fullmatch(
        r"padded to the longest; not packed: log-probs differ by [\d.e-]+", chosen(policy)
    )
    policy = tiny_policy()
    checkpoint(policy.model)
    assert chosen(policy).endswith("not packed: it recomputes layers in a way of its own")


# ---------------------------------------------------------------- micro-batches


@settings(max_examples=60, derandomize=True, database=None, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), min_size=1, max_size=20),
    st.integers(1, 60),
)
def test_micro_batches_hold_every_row_once_and_stay_within_the_budget(sizes, budget):
    rows = [TrainRow((7,) * prompt, (8,) * response) for prompt, response in sizes]
    batches = shared_batches(rows, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
    for batch in batches:
        prompts = {rows[i].prompt_ids for i in batch}
        tokens = sum(map(len, prompts)) + sum(len(rows[i].response_ids) for i in batch)
        assert tokens <= budget or len(batch) == 1


def test_rows_with_one_prompt_stay_together_where_they_fit():
    rows = [TrainRow((i % 3, 5, 6), (7, 8)) for i in range(9)]
    # A group is 3 + 3 x 2 tokens; 12 would take a group and a row of the next.
    assert [sorted(b) for b in shared_batches(rows, 12)] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    # Two groups are 18: the prompts counted once each; counted per row they are 30.
    assert [sorted(b) for b in shared_batches(rows, 18)] == [[0, 1, 3, 4, 6, 7], [2, 5, 8]]


def test_rows_with_one_prompt_may_exceed_the_budget_to_stay_together():
    rows = [TrainRow((i % 3, 5, 6), (7, 8)) for i in range(9)]
    # A group is 9 tokens: more than 7, which 2 rows fill; the third would compute the prompt again.
    assert [len(b) for b in shared_batches(rows, 7)] == [2, 1, 2, 1, 2, 1]
    assert [sorted(b) for b in shared_batches(rows, 7, 20)] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    # No more than its own tokens: 20 would hold two groups.
    assert [len(b) for b in shared_batches(rows, 7, 8)] == [2, 1, 2, 1, 2, 1]


def test_rows_of_a_model_that_cannot_pack_are_cut_by_padded_length(tiny_policy):
    rows = [TrainRow((5, 6), (7, 8)), TrainRow((5, 6), (7, 8))]
    assert cut(tiny_policy(), rows, 6) == [[0, 1]]  # 2 + 2 x 2 tokens
    assert cut(tiny_policy(**SLIDING), rows, 6) == [[0], [1]]  # 2 x 4
