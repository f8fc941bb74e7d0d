"""Draws from logits, against probabilities worked by hand and a chi-square test."""

import math

import pytest
import torch

from alignkit.protocols import Sampling
from alignkit_hf.sampling.choose import choose, kept
from alignkit_hf.sampling.rng import stream, uniforms

PROBS = torch.tensor([0.05, 0.4, 0.1, 0.25, 0.2])
"""In order of size: token 1 (0.4), 3 (0.25), 4 (0.2), 2 (0.1), 0 (0.05)."""

CASES = {
    "all": ({}, [0.05, 0.4, 0.1, 0.25, 0.2]),
    # T = 0.5 squares the probabilities: .0025 .16 .01 .0625 .04, sum 0.275
    "cold": (
        {"temperature": 0.5},
        [0.0025 / 0.275, 0.16 / 0.275, 0.01 / 0.275, 0.0625 / 0.275, 0.04 / 0.275],
    ),
    # the two largest, 0.4 and 0.25, sum 0.65
    "top_k": ({"top_k": 2}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
    # 0.4 + 0.25 = 0.65 < 0.7 <= 0.85, so the third stays too (a strict "up to p" would drop it)
    "top_p": ({"top_p": 0.7}, [0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85]),
    # at least 0.3 * 0.4 = 0.12
    "min_p": ({"min_p": 0.3}, [0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85]),
    # top_k first: .4 .25 .2 of 0.85; then 0.4 / 0.85 = 0.47 < 0.6 <= 0.76, two stay
    # (top_p of the whole distribution would want 0.6 of 1: also two; of 0.7, three and two)
    "top_k, then top_p": ({"top_k": 3, "top_p": 0.7}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
    "a nucleus smaller than any token": ({"top_p": 0.01}, [0, 1, 0, 0, 0]),
    "min_p = 1 keeps the best": ({"min_p": 1.0}, [0, 1, 0, 0, 0]),
}


@pytest.mark.parametrize("name", CASES)
def test_frequencies_and_logprobs(name):
    how, expected = CASES[name]
    count = 20_000
    streams = torch.full((count,), stream(1, 2, 3))
    logits = (PROBS.log() + 3.0).expand(count, -1)
    draws = uniforms(streams, torch.arange(count))
    tokens, logprobs = choose(logits, draws, Sampling(**how))
    seen = torch.bincount(tokens, minlength=5).tolist()
    assert all((n == 0) == (p == 0) for n, p in zip(seen, expected, strict=True))
    chi2 = sum((n - count * p) ** 2 / (count * p) for n, p in zip(seen, expected, strict=True) if p)
    assert chi2 < 18.5  # 0.1 % point for 4 degrees of freedom; the seed is fixed
    wanted = torch.tensor([math.log(p) if p else math.nan for p in expected])[tokens]
    torch.testing.assert_close(logprobs, wanted, atol=1e-6, rtol=0)


def test_equal_tokens_beyond_k_are_dropped():
    assert kept(torch.full((1, 4), 0.25), Sampling(top_k=2)).count_nonzero() == 2


def test_draws_at_the_edges_stay_inside_the_distribution():
    """The first and last tokens are impossible; u = 0 and the largest u below 1 avoid them."""
    logits = torch.tensor([[-torch.inf, 0.0, -40.0, 0.0, -torch.inf]]).expand(2, -1)
    edges = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    tokens, logprobs = choose(logits, edges, Sampling())
    assert tokens.tolist() == [1, 3]
    torch.testing.assert_close(logprobs, torch.full((2,), -math.log(2)))


def test_a_large_vocabulary_is_cut_into_chunks_that_change_nothing():
    torch.manual_seed(0)
    logits = torch.randn(150, 60_000)  # 69 rows a chunk
    draws = torch.rand(150, dtype=torch.float64)
    tokens, logprobs = choose(logits, draws, Sampling())
    alone = [choose(logits[i : i + 1], draws[i : i + 1], Sampling()) for i in (0, 68, 69, 149)]
    assert [int(t) for t, _ in alone] == tokens[[0, 68, 69, 149]].tolist()
    assert [float(p) for _, p in alone] == logprobs[[0, 68, 69, 149]].tolist()


def test_greedy_takes_the_first_of_equals():
    tokens, logprobs = choose(
        torch.tensor([[1.0, 3.0, 3.0]]), torch.zeros(1).double(), Sampling(temperature=0)
    )
    assert tokens.tolist() == [1]
    assert float(logprobs[0]) == pytest.approx(3 - math.log(math.e + 2 * math.e**3))


@pytest.mark.parametrize(
    "how", [{}, {"temperature": 0}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.1}]
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_show_in_the_log_probability(how, value):
    logits = torch.zeros(3, 9)
    logits[1, 4] = value
    tokens, logprobs = choose(logits, torch.full((3,), 0.99, dtype=torch.float64), Sampling(**how))
    assert logprobs.isfinite().tolist() == [True, False, True]
    assert ((tokens >= 0) & (tokens < 9)).all()  # no index that is out of range
