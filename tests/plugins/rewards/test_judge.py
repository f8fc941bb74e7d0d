"""The judge against an endpoint that stalls, fails, is busy and answers nonsense."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignkit.engine.evaluation.statistics import graded, summary
from alignkit.errors import AlignkitError
from alignkit.protocols import Example, Reward
from alignkit_rewards import Judge
from judging_server import said, serving

FAST = {"backoff": 0.01, "timeout": 0.3, "retries": 2}


def example(name):
    return Example(name, f"question {name}", f"gold {name}")


@pytest.fixture
def judge(tmp_path):
    """Make a judge of a server; all that were made are closed in the end."""
    made = []
    (tmp_path / "judge.txt").write_text("{question} / {answer} / {response}")

    def make(server, **keys):
        table = {"url": server.url, "model": "m", "prompt": tmp_path / "judge.txt", **FAST, **keys}
        made.append(Judge(**table).build())
        return made[-1]

    yield make
    for reward in made:
        reward.close()


def scored(server, text, number):
    """Give the score that stands at the end of the prompt."""
    return said(f"I think. Score: {text.split()[-1]}")


def test_the_prompt_is_filled_verbatim_and_the_score_is_scaled(judge):
    with serving(scored) as server:
        reward = judge(server, worst=1, best=5)
        found = reward(["{answer} 5", "2", "1"], [example("a"), example("b"), example("c")])
    assert [r.total for r in found] == [1.0, 0.25, 0.0]
    assert found[1].parts == {"judge": 0.25, "unjudged": 0.0}
    assert "question a / gold a / {answer} 5" in server.asked


def stalls(server, text, number):
    server.over.wait(5)
    return said("Score: 9")


def drips(server, text, number):
    """Never silent for as long as the timeout, and never done."""
    return 200, {}, (b" " for _ in range(100) if not server.over.wait(0.05))


def drops(server, text, number):
    raise ConnectionResetError


def fails(server, text, number):
    return 500, {}, b"out of order"


def nonsense(server, text, number):
    return 200, {}, b"<html>"


def other_shape(server, text, number):
    return 200, {}, b'{"choices": []}'


def beyond(server, text, number):
    return said("Score: 99")


def wordy(server, text, number):
    return said("A fine response.")


BAD = {f.__name__: f for f in (stalls, drips, drops, fails, nonsense, other_shape, beyond, wordy)}


@pytest.mark.parametrize("name", BAD)
def test_no_verdict_is_unjudged_and_never_zero(judge, name):
    def answer(server, text, number):
        return said("Score: 8") if "good" in text else BAD[name](server, text, number)

    begun = time.monotonic()
    with serving(answer) as server:
        responses = ["good", "bad", "bad too"]
        found = judge(server)(responses, [example("a"), example("a"), example("b")])
    assert time.monotonic() - begun < 4
    assert [r.total for r in found] == [0.8, 0.8, 0.8]  # of its question, and of all so far
    assert [r.parts["unjudged"] for r in found] == [0, 1, 1]
    assert "judge" not in found[1].parts
    retried = 1 if name in ("beyond", "wordy") else 3
    assert server.asked.count("question b / gold b / bad too") == retried


def test_without_any_verdict_the_run_ends_with_the_reason(judge):
    with serving(fails) as server, pytest.raises(AlignkitError, match="no verdict could be had"):
        judge(server)(["x"], [example("a")])


def test_a_refusal_for_good_is_not_repeated(judge):
    refused = pytest.raises(AlignkitError, match="answered 401: b'who are you'; check url")
    with serving(lambda *asked: (401, {}, b"who are you")) as server, refused:
        judge(server)(["x"], [example("a")])
    assert len(server.asked) == 1


def test_a_busy_endpoint_is_asked_again_when_it_says(judge):
    times = []

    def busy(server, text, number):
        times.append(time.monotonic())
        return said("Score: 5") if number > 1 else (429, {"Retry-After": "1"}, b"")

    with serving(busy) as server:
        (found,) = judge(server)(["x"], [example("a")])
    assert found.total == 0.5
    assert 1.0 <= times[1] - times[0] < 3


def test_requests_begin_at_the_pace_and_not_more_at_once_than_asked(judge):
    def slow(server, text, number):
        server.over.wait(0.05)
        return said("Score: 5")

    responses, examples = [str(i) for i in range(8)], [example("a")] * 8
    with serving(slow) as server:
        judge(server, concurrency=3)(responses, examples)
    assert server.most == 3
    begun = time.monotonic()
    with serving(slow) as server:
        judge(server, requests_per_minute=1200)(responses, examples)
    assert time.monotonic() - begun >= 7 * 0.05


def test_the_token_budget_is_kept_and_what_is_not_spent_is_given_back(judge):
    with serving(lambda *asked: said("Score: 5", tokens=40)) as server:
        reward = judge(server, token_budget=200, max_tokens=80, concurrency=1)
        found = reward(list("abcdefgh"), [example("a")] * 8)
    most = len("question a / gold a / a") + 80
    assert len(server.asked) == 1 + (200 - most) // 40  # 40 are spent by each, `most` must be left
    assert sum(r.parts["unjudged"] for r in found) == 8 - len(server.asked)


def test_failures_count_against_the_budget_as_they_may_have_cost_it(judge):
    with serving(nonsense) as server, pytest.raises(AlignkitError, match="no verdict"):
        judge(server, token_budget=250, max_tokens=80, retries=9)(["a"], [example("a")])
    assert len(server.asked) == 2


KILLED = """
import sys
from pathlib import Path
from alignkit.protocols import Example
from alignkit_rewards import Judge
url, folder = sys.argv[1], Path(sys.argv[2])
judge = Judge(url=url, model="m", prompt=folder / "judge.txt", cache=folder / "cache.jsonl",
              concurrency=1).build()
judge(["4", "6", "hang"], [Example("a", "question a", "gold a")] * 3)
"""


def test_the_cache_survives_a_kill(judge, tmp_path):
    def answer(server, text, number):
        return stalls(server, text, number) if text.endswith("hang") else scored(server, text, 1)

    with serving(answer) as server:
        judge(server)(["1"], [example("a")])  # makes the prompt's file
        command = [sys.executable, "-c", KILLED, server.url, str(tmp_path)]
        with subprocess.Popen(command) as child:
            while not any(text.endswith("hang") for text in server.asked):
                assert child.poll() is None
                time.sleep(0.02)
            child.kill()
        with (tmp_path / "cache.jsonl").open("a") as file:
            file.write('{"key": "cut in the mid')
        server.asked.clear()
        reward = judge(server, cache=tmp_path / "cache.jsonl")
        found = reward(["4", "6", "7"], [example("a")] * 3)
        assert [r.total for r in found] == [0.4, 0.6, 0.7]
        assert server.asked == ["question a / gold a / 7"]
        again = judge(server, cache=tmp_path / "cache.jsonl")
        assert again(["7"], [example("a")])[0].total == 0.7
        assert len(server.asked) == 1


def test_a_key_comes_from_the_environment(judge, monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    keys = {"url": "http://localhost/v1", "model": "m", "prompt": Path(__file__)}
    (lacking,) = Judge(key_from="JUDGE_KEY", **keys).missing()
    assert lacking.startswith("the environment variable JUDGE_KEY is not set")
    monkeypatch.setenv("JUDGE_KEY", "something")
    assert not list(Judge(key_from="JUDGE_KEY", **keys).missing())


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"worst": 10.0}, "best"),
        ({"pattern": "no group"}, "pattern"),
        ({"pattern": "(a)(b)"}, "pattern"),
        ({"pattern": "("}, "pattern"),
    ],
    ids=["one score", "no group", "two groups", "broken"],
)
def test_problems_the_table_names(tmp_path, keys, key):
    (tmp_path / "p.txt").write_text("{response}")
    table = {"url": "http://localhost/v1", "model": "m", "prompt": tmp_path / "p.txt"}
    assert not list(Judge(**table).check({}))
    assert [name for name, _ in Judge(**table, **keys).check({})] == [key]
    (tmp_path / "p.txt").write_text("{question}")
    assert [name for name, _ in Judge(**table).check({})] == ["prompt"]


def test_unjudged_responses_are_in_no_mean_of_an_evaluation():
    def response(total, unjudged, group):
        done = SimpleNamespace(token_ids=(1, group), given=())
        reward = Reward(total, {"unjudged": unjudged})
        return SimpleNamespace(
            reward=reward, completion=done, group_id=group, truncated=False, empty=False, turns=0
        )

    found = [response(1.0, 0.0, 0), response(0.7, 1.0, 1), response(0.5, 0.0, 2)]
    assert summary(found)["reward"] == 0.75
    assert summary(found)["unjudged"] == pytest.approx(1 / 3)
    assert graded([[t] for t in found])["answer_reward"] == 0.75
    assert graded([[t] for t in found])["n"] == 2
    assert json.dumps(summary(found))
