"""The judge's endpoint: what real servers send, and what the limits promise."""

import gzip
import json
import time
from email.utils import formatdate

import pytest

from alignkit.engine.sampling.endpoint import seconds_asked
from alignkit.errors import AlignkitError
from alignkit.protocols import Example
from alignkit_rewards import Judge
from judging_server import said, serving

A = Example("a", "question", "gold")


@pytest.fixture
def judge(tmp_path):
    """Make a judge of a server; all that were made are closed in the end."""
    made = []
    (tmp_path / "judge.txt").write_text("{response}")
    fast = {"backoff": 0.01, "timeout": 5, "retries": 2, "prompt": tmp_path / "judge.txt"}

    def make(server, **keys):
        made.append(Judge(**{"url": server.url, "model": "m", **fast, **keys}).build())
        return made[-1]

    yield make
    for reward in made:
        reward.close()


@pytest.mark.parametrize("packs", ["always", "if asked"])
def test_a_server_that_compresses_is_read(judge, packs):
    def packed(server, text, number):
        status, headers, content = said("Score: 5")
        if packs == "always" or "gzip" in server.headers.get("Accept-Encoding", ""):
            return status, {"Content-Encoding": "gzip"}, gzip.compress(content)
        return status, headers, content

    with serving(packed) as server:
        (found,) = judge(server)(["x"], [A])
    assert found.total == 0.5
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "content",
    [b"[" * 200_000, b'{"choices":' * 50_000, b"\xff\xfe", b"9" * 9_000, b"[1]", b'"x"'],
    ids=["arrays", "objects", "no UTF-8", "a number", "a list", "a string"],
)
def test_no_answer_of_a_server_ends_the_run(judge, content):
    def nonsense(server, text, number):
        return said("Score: 5") if text == "b" else (200, {}, content)

    with serving(nonsense) as server:
        found = judge(server)(["a", "b"], [A, A])
    assert [r.parts["unjudged"] for r in found] == [1.0, 0.0]


@pytest.mark.parametrize("usage", ["n/a", [1], {"total_tokens": "many"}, {"total_tokens": -4}])
def test_a_reply_counts_whatever_stands_beside_it(judge, usage):
    body = {"choices": [{"message": {"content": "Score: 5"}}], "usage": usage}
    with serving(lambda *asked: (200, {}, json.dumps(body).encode())) as server:
        (found,) = judge(server)(["x"], [A])
    assert found.total == 0.5


def test_half_a_character_is_asked_about_and_read(judge, tmp_path):
    with serving(lambda *asked: said("Score: 5 \ud83d")) as server:
        (found,) = judge(server, cache=tmp_path / "cache.jsonl")(["x \ud83d"], [A])
    assert found.total == 0.5
    assert server.asked == ["x \ufffd"]


def test_what_a_server_used_counts_in_full(judge):
    """The system prompt of the server's template is in no request of ours."""
    with serving(lambda *asked: said("Score: 5", tokens=400)) as server:
        reward = judge(server, token_budget=1000, max_tokens=80, concurrency=1)
        found = reward(list("abcdef"), [A] * 6)
    assert len(server.asked) == 3  # 400, 800, 1200; before the third 200 were left
    assert sum(r.parts["unjudged"] for r in found) == 3


@pytest.mark.parametrize(("status", "times"), [(504, 2), (500, 2), (408, 2), (429, 9), (503, 9)])
def test_a_failure_after_the_fact_may_have_cost_tokens(judge, status, times):
    """Each may take 81 tokens. A server that is busy refuses before it makes any."""
    with (
        serving(lambda *asked: (status, {}, b"")) as server,
        pytest.raises(AlignkitError, match="no verdict"),
    ):
        judge(server, token_budget=200, max_tokens=80, retries=8)(["a"], [A])
    assert len(server.asked) == times


def test_the_spent_budget_is_said_once(judge, caplog):
    with serving(lambda *asked: said("Score: 5", tokens=100)) as server:
        judge(server, token_budget=100, max_tokens=80, concurrency=1)(list("abc"), [A] * 3)
    assert [r.getMessage() for r in caplog.records if r.name == "alignkit"] == [
        "token_budget is spent: 0 left, 81 needed"
    ]


def test_equal_questions_are_asked_once(judge):
    def slow(server, text, number):
        server.over.wait(0.05)
        return said("Score: 5")

    with serving(slow) as server:
        found = judge(server, concurrency=4)(["x", "y", "x", "x"], [A] * 4)
    assert [r.total for r in found] == [0.5] * 4
    assert sorted(server.asked) == ["x", "y"]


def test_a_date_to_try_again_after_is_waited_for(judge):
    times = []

    def busy(server, text, number):
        times.append(time.monotonic())
        if number > 1:
            return said("Score: 5")
        return 429, {"Retry-After": formatdate(time.time() + 2, usegmt=True)}, b""

    with serving(busy) as server:
        judge(server)(["x"], [A])
    assert 0.9 <= times[1] - times[0] < 5  # dates have whole seconds


NONE = ("", None, "soon", "-5", "nan", "1e9", "²", "Mon, 99 Foo 99999")


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("7", 7, 7),
        (formatdate(time.time() + 3600, usegmt=True), 3000, 3600),
        (formatdate(time.time() - 3600, usegmt=True), 0, 0),
        ("9" * 5000, 60, float("inf")),
        *(
            (text, 0, 0)
            for text in ("", None, "soon", "-5", "nan", "1e9", "²", "Mon, 99 Foo 99999")
        ),
    ],
)
def test_what_a_retry_after_header_asks_for(text, least, most):
    assert least <= seconds_asked(text) <= most


def test_a_judge_that_stalls_does_not_hold_up_the_end(judge):
    with serving(lambda server, *asked: (server.over.wait(20), said("Score: 5"))[1]) as server:
        reward = judge(server, timeout=20, retries=4)
        pending = reward._model._pool.submit(reward._model.ask, "x")
        while not server.asked:
            time.sleep(0.01)
        begun = time.monotonic()
        reward.close()
        assert time.monotonic() - begun < 3
        assert pending.result() is None
