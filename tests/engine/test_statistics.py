"""What is reported of judged responses; numbers worked by hand."""

from dataclasses import replace
from itertools import combinations
from statistics import fmean

import pytest

from alignkit.engine.evaluation.statistics import (
    category,
    graded,
    identical,
    majority,
    pass_at_k,
    pass_rates,
    sampled,
    summary,
    update_means,
)
from alignkit.engine.sampling.rollouts import Trajectory
from alignkit.protocols import Completion, Example, Reward


def response(answer, *, form=1.0, length=1, text="x", finish="stop", group=0):
    reward = Reward(answer, {"format": form, "answer": answer})
    completion = Completion(text, (1,) * length, (0.0,) * length, finish, 0)
    return Trajectory(group, group, Example(str(group), "q", "g"), "p", (1,), completion, reward)


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (Reward(1.0, {"format": 1.0, "answer": 1.0}), "correct"),
        (Reward(0.0, {"format": 1.0, "answer": 0.0}), "format_only"),
        (Reward(0.0, {"format": 0.0, "answer": 0.0}), "neither"),
        (Reward(0.5, {"format": 0.5, "answer": 0.5}), "neither"),
        (Reward(1.0), "correct"),
        (Reward(0.9), "neither"),
    ],
)
def test_categories(reward, expected):
    assert category(reward) == expected


def test_summary_means_over_responses():
    got = summary(
        [
            response(1.0, length=4),
            response(0.0, length=7, finish="length"),
            response(0.0, form=0.0, length=1, text=" "),
        ]
    )
    assert got == {
        "reward": pytest.approx(1 / 3),
        "answer_reward": pytest.approx(1 / 3),
        "format_reward": pytest.approx(2 / 3),
        "response_length": 4.0,
        "truncated": pytest.approx(1 / 3),
        "empty": pytest.approx(1 / 3),
        "identical": 0.0,  # all of different length
        "unparsed": 0.0,
        "timed_out": 0.0,
    }


def test_what_is_amiss_is_a_share_of_responses_not_a_reward():
    late = Reward(0.0, {"format": 1.0, "answer": 0.0, "timed_out": 1.0})
    odd = Reward(0.0, {"format": 1.0, "answer": 0.0, "unparsed": 1.0})
    plain = response(1.0)
    got = summary([replace(plain, reward=late), replace(plain, reward=odd), plain, plain])
    assert (got["timed_out"], got["unparsed"]) == (0.25, 0.25)
    assert not {"timed_out_reward", "unparsed_reward"} & got.keys()


def test_identical_is_the_share_of_the_most_frequent_response_in_its_group():
    def group(number, *lengths):
        return [response(1.0, length=n, group=number) for n in lengths]

    assert identical(group(0, 3, 3, 3, 3)) == 1.0
    assert identical(group(0, 1, 2, 3, 4)) == 0.0
    assert identical(group(0, 0, 0, 0, 0)) == 0.0  # without a token
    assert identical(group(0, 5)) == 0.0
    # 3 of 4 alike: 2/3 (a share of responses would say 3/4); 2 and 2: 1/3 (all have an equal: 1);
    # equal ones of another group do not count
    both = group(0, 3, 3, 3, 7) + group(1, 3, 3, 7, 7)
    assert identical(both) == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_standard_error_counts_examples_not_responses():
    groups = [
        [response(1.0, length=2), response(1.0, length=4)],
        [response(1.0, length=6), response(0.0, length=10)],
        [response(0.0, length=20, form=0.0), response(0.0, length=30)],
    ]
    got = graded(groups)
    # Examples' means 1, 1/2, 0: deviation (ddof 1) 1/2, so 0.5 / √3. With ddof 0 it would be
    # 0.2357, and over the six responses √(0.3 / 6) = 0.2236.
    assert got["answer_reward_se"] == pytest.approx(0.2886751345948129, abs=1e-12)
    assert got["answer_reward"] == 0.5
    assert (got["n"], got["n_correct"], got["n_format_only"], got["n_neither"]) == (3, 3, 2, 1)
    assert got["n_responses"] == 6
    assert got["response_length_correct"] == 4.0
    assert got["response_length_incorrect"] == 20.0


def test_what_is_undefined_is_left_out():
    got = graded([[response(1.0)]])
    assert "answer_reward_se" not in got
    assert "response_length_incorrect" not in got


@pytest.mark.parametrize(("n", "correct"), [(5, 0), (5, 2), (5, 5), (6, 1)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n, correct):
    right = [True] * correct + [False] * (n - correct)
    for k in range(1, n + 1):
        share = fmean(any(subset) for subset in combinations(right, k))
        assert pass_at_k(n, correct, k) == pytest.approx(share, abs=1e-12)


def test_pass_at_k_is_not_the_biased_power():
    # 1 - C(3,2)/C(4,2) = 0.5; the plug-in estimate 1 - (3/4)² would be 0.4375.
    assert pass_at_k(4, 1, 2) == 0.5
    with pytest.raises(ValueError, match="not defined"):
        pass_at_k(4, 1, 5)


def test_majority_votes():
    assert majority(["a", "b", "b"], [True, False, False]) == 0.0
    assert majority(["a", "b"], [True, False]) == 0.5  # a tie is not settled by order
    assert majority(["b", "a"], [False, True]) == 0.5
    assert majority([None, None, "a"], [False, False, True]) == 1.0  # silence has no vote
    assert majority([None], [False]) == 0.0


def test_a_vote_that_nobody_can_read_is_not_reported():
    """Where no response has an answer to read, 0 would say that all votes went wrong."""

    class Tagged:
        def __call__(self, responses, examples):
            raise AssertionError("nothing is judged here")

        def read(self, response):
            return response[3:-4] if response.startswith("<a>") else None

    groups = [[response(1.0, text="so it is 4"), response(0.0, text="5")]]
    assert set(sampled(groups, Tagged())) == {"pass@1", "pass@2"}
    assert set(sampled(groups)) == {"pass@1", "pass@2", "majority@2"}  # whole texts vote
    groups.append([response(1.0, text="<a>4</a>"), response(0.0, text="5")])
    assert sampled(groups, Tagged())["majority@2"] == 0.5  # silence counts as wrong


def test_several_samples_give_pass_and_majority():
    def tagged(value, right, group):
        return response(float(right), text=f"<answer>{value}</answer>", group=group)

    groups = [
        [tagged(4, True, 0), tagged(4, True, 0), tagged(5, False, 0)],
        [tagged(1, False, 1), tagged(1, False, 1), tagged(2, True, 1)],
    ]
    got = sampled(groups)
    # c = 2 and 1 of n = 3. pass@1: (2/3 + 1/3)/2; pass@2: (1 + (1 - C(2,2)/C(3,2)))/2 = 5/6.
    assert got == {
        "pass@1": pytest.approx(0.5),
        "pass@2": pytest.approx(5 / 6),
        "pass@3": 1.0,
        "majority@3": 0.5,
    }


class Lines:
    """A reward whose answer is a response's last line."""

    def __call__(self, responses, examples):
        raise AssertionError("these are judged already")

    def read(self, response):
        return response.rpartition("\n")[2] or None


def test_samples_vote_on_what_the_reward_reads():
    said = ["so\n4", "thus\n4", "5", "5\n"]
    group = [response(float(text[-1:] == "4"), text=text) for text in said]
    assert sampled([group], Lines())["majority@4"] == 1.0  # 4, 4, 5 and no answer
    assert sampled([group])["majority@4"] == 0.0  # white space aside "5" is there twice


def test_updates_are_joined_by_their_tokens():
    common = {"lr": 0.1, "skipped_steps": 0.0}
    got = update_means(
        [
            {"loss": 1.0, "grad_norm": 2.0, "response_tokens": 30.0, "clip_fraction": 0.1} | common,
            {"loss": 3.0, "grad_norm": 4.0, "response_tokens": 10.0, "clip_fraction": 0.5}
            | {"lr": 0.2, "skipped_steps": 1.0},
        ]
    )
    assert got == {
        "loss": 2.0,
        "grad_norm": 3.0,
        "response_tokens": 40.0,
        "clip_fraction": pytest.approx(0.2),  # (30·0.1 + 10·0.5)/40, not 0.3, not the last 0.5
        "lr": 0.2,
        "skipped_steps": 1.0,
    }
    assert update_means([]) == {}


def test_updates_count_by_their_tokens_however_many_they_computed():
    computed = {"response_tokens": 30.0, "computed_token_share": 0.5, "clip_fraction": 0.1}
    nothing = {"response_tokens": 0.0, "computed_token_share": 0.0}  # and no clip fraction
    whole = {"response_tokens": 10.0, "computed_token_share": 1.0, "clip_fraction": 0.5}
    assert update_means([nothing, computed, whole]) == {
        "response_tokens": 40.0,
        "computed_token_share": pytest.approx(0.625),  # (30·0.5 + 10·1)/40
        "clip_fraction": pytest.approx(0.2),  # (30·0.1 + 10·0.5)/40; by those computed 0.26
    }


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_training_reports_pass_at_every_k_as_the_share_of_draws_with_a_right_one(size):
    """Two groups; every choice of k responses is looked at."""
    verdicts = [[float(i == 0) for i in range(size)], [float(i % 2) for i in range(size)]]
    got = pass_rates([response(v, group=g) for g, vs in enumerate(verdicts) for v in vs])
    assert list(got) == [f"pass@{k}" for k in range(1, size + 1)]
    for k in range(1, size + 1):
        shares = [fmean(max(chosen) for chosen in combinations(vs, k)) for vs in verdicts]
        assert got[f"pass@{k}"] == pytest.approx(fmean(shares), abs=1e-12)


def test_groups_of_unlike_size_are_counted_to_the_smallest():
    some = [response(1.0, group=0), response(0.0, group=0), *[response(0.0, group=1)] * 3]
    assert pass_rates(some) == {"pass@1": pytest.approx(0.25), "pass@2": pytest.approx(0.5)}
    assert pass_rates([]) == {}
