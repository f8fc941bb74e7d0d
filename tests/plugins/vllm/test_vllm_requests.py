"""Requests to an engine."""

from itertools import pairwise

from alignkit.protocols import Sampling
from alignkit_vllm.requests import Answer, completions, requests, seed_of


def test_seeds_of_neighbours_do_not_meet():
    # The engine gives a prompt's i-th response seed + i: bases nearer than n would share draws.
    seeds = sorted(seed_of(0, step, key) for step in range(20) for key in range(200))
    assert min(b - a for a, b in pairwise(seeds)) > 10_000
    assert all(0 <= seed < 2**62 for seed in seeds)
    assert seed_of(1, 2, 3) != seed_of(2, 1, 3)


def test_requests_leave_room_and_say_what_ends_a_response(policy):
    how = Sampling(n=3, max_tokens=10, min_tokens=8, seed=4, prompt_keys=(7, 8, 9))
    full, cut, free = requests([[1] * 20, [1] * 16, [1] * 5], how, policy, 20)
    assert full is None
    assert (cut.options["max_tokens"], cut.options["min_tokens"]) == (4, 4)
    assert (free.options["max_tokens"], free.options["min_tokens"]) == (10, 8)
    assert free.options["seed"] == seed_of(4, 0, 9)
    assert free.options["stop_token_ids"] == sorted(policy.eos_ids)
    assert free.options["ignore_eos"] and free.options["include_stop_str_in_output"]  # noqa: PT018


def test_a_greedy_response_is_asked_for_once_and_repeated(policy):
    (request,) = requests([[1, 2]], Sampling(n=4, temperature=0.0), policy, 100)
    assert request.n == 1
    found = completions([Answer((5,), (-0.5,), "x", True, False)], 4, policy.tokenizer, 3)
    assert len(found) == 4
    assert len(set(found)) == 1
