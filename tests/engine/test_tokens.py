import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignkit.engine.tokens import Padded, TrainRow, encode, micro_batches, pad_values

PAD = 9


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_folder)


def test_encode_adds_no_special_token(tokenizer):
    ids = encode(tokenizer, "a</think>")
    assert tokenizer.convert_ids_to_tokens(list(ids)) == ["a", "</think>"]
    assert encode(tokenizer, "") == ()


def test_padded_rows_by_hand():
    batch = Padded.of([TrainRow((5, 6), (7, 8, 4)), TrainRow((3,), (2,))], PAD)
    # The last response token is predicted, never read: row 0 is 5 6 7 8, not 5 6 7 8 4.
    assert batch.input_ids.tolist() == [[5, 6, 7, 8], [3, PAD, PAD, PAD]]
    assert batch.targets.tolist() == [[7, 8, 4], [2, 0, 0]]
    # Response token t is predicted at prompt length - 1 + t; off by one would give 2 3 4.
    assert batch.positions.tolist() == [[1, 2, 3], [0, 0, 0]]
    assert batch.mask.tolist() == [[True, True, True], [True, False, False]]


def test_padded_takes_rows_without_a_response():
    batch = Padded.of([TrainRow((5, 6), ())], PAD)
    assert batch.input_ids.tolist() == [[5, 6]]
    assert batch.mask.shape == (1, 0)


def test_a_row_without_prompt_is_refused():
    with pytest.raises(ValueError, match="at least one prompt id"):
        TrainRow((), (1, 2))


@pytest.mark.parametrize("name", ["old_logprobs", "ref_logprobs", "rollout_logprobs"])
def test_logprobs_of_another_length_are_refused(name):
    with pytest.raises(ValueError, match=rf"{name} must have shape \(2,\).*not \(3,\)"):
        TrainRow((1,), (2, 3), **{name: torch.zeros(3)})


def test_pad_values_takes_the_dtype_of_the_other():
    padded = pad_values([torch.tensor([1.0, 2.0]), torch.tensor([])], torch.ones(2, 3).double())
    assert padded.dtype == torch.float64
    assert padded.tolist() == [[1, 2, 0], [0, 0, 0]]


@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 100))
def test_micro_batches_partition_the_rows_within_the_budget(lengths, budget):
    batches = micro_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


def test_micro_batches_fill_the_budget():
    # 4 x 10 = 40 fits; one row a batch, or a strict <, would give 4 or 2 batches.
    assert micro_batches([10, 10, 10, 10], 40) == [[0, 1, 2, 3]]
    # Mixed in the order given (10, 1, 10, 1 under 20) it would take two batches of mostly padding.
    assert micro_batches([10, 1, 10, 1], 20) == [[0, 2], [1, 3]]
