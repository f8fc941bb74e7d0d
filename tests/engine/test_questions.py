"""Which questions are asked, in which order."""

import pytest

from alignkit.engine.sampling.questions import PromptStream
from alignkit.errors import AlignkitError
from rollout_fakes import TEMPLATE, FakePolicy, questions


def stream(data, seed=0, **policy):
    return PromptStream(data, TEMPLATE, FakePolicy(**policy), seed=seed)


def test_every_question_is_drawn_once_before_any_again():
    drawn = [p.index for p in stream(questions(7)).take(14, step=1)]
    assert sorted(drawn[:7]) == sorted(drawn[7:]) == list(range(7))
    assert drawn[:7] != drawn[7:]  # another order: 1 in 5040 by chance, and the seed is fixed


def test_the_order_depends_on_the_seed_alone():
    def drawn(seed, chunk):
        source = stream(questions(7), seed)
        return [p.index for _ in range(12 // chunk) for p in source.take(chunk, step=1)]

    assert drawn(1, 3) == drawn(1, 4) != drawn(2, 3)


def test_a_question_drawn_again_has_another_key():
    """Else two groups of one batch would hold the same responses."""
    first, second = stream(questions(1)).take(2, step=1)
    assert (first.index, second.index) == (0, 0)
    assert first.key != second.key


def test_the_position_is_the_whole_state():
    source = stream(questions(5))
    source.take(8, step=1)
    resumed = stream(questions(5))
    resumed.position = source.position
    assert resumed.take(9, step=1) == source.take(9, step=1)


def test_prompts_too_long_are_passed_over_and_counted():
    source = stream(questions(5, long=(1, 3)), max_length=20)
    assert sorted(p.index for p in source.take(3, step=1)) == [0, 2, 4]
    source.take(4, step=1)  # the seventh is in the third epoch, so two epochs are behind us
    assert source.skipped == source.position - 7 >= 4


def test_data_of_which_nothing_fits_is_an_error():
    with pytest.raises(AlignkitError, match=r"every prompt of \[data\] fills the 20 tokens"):
        stream(questions(3, long=(0, 1, 2)), max_length=20).take(1, step=1)


def test_empty_data_is_an_error():
    with pytest.raises(AlignkitError, match="no examples"):
        stream([])
