"""Traces: every response wanted, once, whoever writes them and however often the run is ended."""

import json
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignkit.engine.sampling.endpoint_table import EndpointTable
from alignkit.errors import AlignkitError
from alignkit.protocols import Example, Reward
from alignkit_algorithms.generate import KEPT, TRACES, Generate
from alignkit_data import Jsonl
from judging_server import said, serving

QUESTIONS = [Example(f"id{n}", f"q{n}", f"{n}") for n in range(7)]
FAST = {"backoff": 0.01, "timeout": 1.0, "retries": 1, "model": "m"}


def by_length(responses, examples):
    return [
        Reward(float(len(r) % 2), {"even": float(len(r) % 2 == 0)})
        for r, _ in zip(responses, examples, strict=True)
    ]


@pytest.fixture(scope="module")
def local(request, tiny_folder):
    """Build a run that a policy of random weights writes."""
    from alignkit_hf import HfPolicy, HfRollout

    policy = HfPolicy(path=str(tiny_folder)).build()

    def make(keys=None, **parts):
        given_ = {
            "data": QUESTIONS,
            "prompt": SimpleNamespace(stop=("#",), render=lambda question: f"{question}:"),
            "policy": policy,
            "rollout": HfRollout(max_tokens=6).build(),
            "reward": by_length,
        }
        table = Generate(**{"samples": 3, "batch_size": 2, "min_reward": 1.0, **(keys or {})})
        return table.build(**{**given_, **parts})

    return make


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_question_has_its_responses_in_order(local, toys, tmp_path):
    metrics = toys.carry_out(local(), tmp_path)
    found = rows(tmp_path / TRACES)
    assert [(r["id"], r["sample"]) for r in found] == [
        (e.id, n) for e in QUESTIONS for n in range(3)
    ]
    for row in found:
        example = next(e for e in QUESTIONS if e.id == row["id"])
        assert (row["question"], row["answer"]) == (example.question, example.answer)
        assert row["prompt"] == f"{example.question}:"
        assert row["reward"] == len(row["response"]) % 2 == 1 - row["even_reward"]
        assert row["finish_reason"] in {"stop", "length"}
    assert len({r["response"] for r in found}) > 10
    assert [m["step"] for m in metrics] == [1, 2, 3, 4]
    assert [m["generate/responses"] for m in metrics] == [6, 12, 18, 21]
    assert metrics[-1]["generate/unanswered"] == 0
    kept = rows(tmp_path / KEPT)
    assert kept == [r for r in found if r["reward"] == 1]
    assert 0 < len(kept) == metrics[-1]["generate/kept"] < 21


@pytest.fixture(scope="module")
def whole(local, tmp_path_factory):
    """The files of a run that nothing ended."""
    from alignkit.execution import Run

    folder = tmp_path_factory.mktemp("whole")
    run = Run(folder, {})
    local().run(run)
    run.close("done")
    return folder


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 10_000))
def test_a_file_cut_anywhere_is_completed_to_the_same(local, whole, tmp_path_factory, cut):
    from alignkit.execution import Run

    data = (whole / TRACES).read_bytes()
    folder = tmp_path_factory.mktemp("cut")
    (folder / TRACES).write_bytes(data[: cut % (len(data) + 1)])
    asked = []
    run = Run(folder, {})
    algorithm = local()
    backend = algorithm.teacher.backend
    generate = backend.generate
    backend.generate = lambda prompts, how: asked.append(len(prompts)) or generate(prompts, how)
    algorithm.run(run)
    run.close("done")
    want = {json.dumps(r, sort_keys=True) for r in rows(whole / TRACES)}
    assert {json.dumps(r, sort_keys=True) for r in rows(folder / TRACES)} == want
    assert len(rows(folder / TRACES)) == len(want)
    assert (folder / KEPT).read_bytes() == (whole / KEPT).read_bytes()
    there = data[: cut % (len(data) + 1)].count(b"\n")
    assert sum(asked) == len(QUESTIONS) - there // 3


def test_a_file_of_something_else_is_refused(local, toys, tmp_path):
    (tmp_path / TRACES).write_text('{"other": 1}\n')
    with pytest.raises(AlignkitError, match=r"traces\.jsonl:1: no row of this algorithm"):
        toys.carry_out(local(), tmp_path)


def test_a_question_that_fills_the_policy_is_unanswered(local, toys, tmp_path):
    data = [Example("long", "x" * 2000, "1"), *QUESTIONS[:2]]
    metrics = toys.carry_out(local(data=data), tmp_path)
    assert metrics[-1]["generate/unanswered"] == 3
    assert {r["id"] for r in rows(tmp_path / TRACES)} == {"id0", "id1"}


def test_without_a_reward_nothing_is_filtered(local, toys, tmp_path):
    metrics = toys.carry_out(local(reward=None), tmp_path)
    assert not (tmp_path / KEPT).exists()
    assert "generate/kept" not in metrics[-1]
    assert "reward" not in rows(tmp_path / TRACES)[0]


def test_a_response_without_a_verdict_is_not_kept(local, toys, tmp_path):
    """Its reward is the mean of others, so that training ignores it: nobody judged it."""

    def unsure(responses, examples):
        said = [Reward(1.0, {"judge": 1.0, "unjudged": 0.0}), Reward(1.0, {"unjudged": 1.0})]
        return [said[e.id in {"id1", "id2"}] for e in examples]

    metrics = toys.carry_out(local(reward=unsure), tmp_path)
    assert {r["id"] for r in rows(tmp_path / KEPT)} == {"id0", *(f"id{n}" for n in range(3, 7))}
    assert {r["id"] for r in rows(tmp_path / TRACES)} == {e.id for e in QUESTIONS}
    last = metrics[-1]
    assert (last["generate/kept"], last["generate/unjudged"], last["generate/reward"]) == (15, 6, 1)


def test_fine_tuning_reads_the_file(local, toys, tmp_path):
    toys.carry_out(local(), tmp_path)
    found = rows(tmp_path / KEPT)
    data = Jsonl(path=tmp_path / KEPT).build()
    assert [(e.question, e.answer) for e in data] == [(r["question"], r["answer"]) for r in found]
    assert [e.extra["response"] for e in data] == [r["response"] for r in found]
    formatted = Jsonl(path=tmp_path / KEPT, question="prompt", answer="response")
    assert [e.question for e in formatted.build()] == [r["prompt"] for r in found]


# ---------------------------------------------------------------- endpoints


def remote(server, keys=None, **parts):
    """Build a run that the model behind a server writes."""
    given_ = {
        "data": QUESTIONS,
        "prompt": SimpleNamespace(stop=("#",), render=lambda question: f"{question}:"),
        "endpoint": EndpointTable(url=server.url, **FAST).build(),
    }
    table = Generate(**{"samples": 2, "batch_size": 3, **(keys or {})})
    return table.build(**{**given_, **parts})


def test_an_endpoint_is_asked_for_each_response(toys, tmp_path):
    with serving(lambda server, text, number: said(f"{text} {number}")) as server:
        metrics = toys.carry_out(remote(server), tmp_path)
    found = rows(tmp_path / TRACES)
    assert sorted(server.asked) == sorted([f"q{n}:" for n in range(7)] * 2)
    assert [(r["id"], r["sample"]) for r in found] == [(e.id, n) for e in QUESTIONS for n in (0, 1)]
    assert all(r["response"].startswith(r["prompt"]) for r in found)
    assert metrics[-1]["generate/responses"] == 14


@pytest.mark.parametrize(
    ("said_reason", "kept"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", ""), (None, ""), ([], ""), (7, "")],
)
def test_a_reply_that_was_cut_is_marked_also_when_it_is_known_from_before(
    toys, tmp_path, said_reason, kept
):
    """Who learns from it would otherwise learn to end there."""
    choice = {"message": {"content": "well"}, "finish_reason": said_reason}
    body = json.dumps({"choices": [choice]}).encode()
    with serving(lambda *asked: (200, {}, body)) as server:
        for out in ("first", "again"):
            known = {"url": server.url, **FAST, "cache": tmp_path / "known.jsonl"}
            subject = remote(server, endpoint=EndpointTable(**known).build())
            toys.carry_out(subject, tmp_path / out)
            assert {r["finish_reason"] for r in rows(tmp_path / out / TRACES)} == {kept}
        assert len(server.asked) == 14


def test_what_an_endpoint_did_not_give_is_asked_again_when_resumed(toys, tmp_path):
    healthy = []

    def answer(server, text, number):
        if not healthy and text in {"q1:", "q5:"}:
            return 500, {}, b"out of order"
        return said(f"about {text}")

    with serving(answer) as server:
        first = toys.carry_out(remote(server), tmp_path)
        assert first[-1]["generate/unanswered"] == 4
        assert not {"id1", "id5"} & {r["id"] for r in rows(tmp_path / TRACES)}
        healthy.append(True)
        server.asked.clear()
        _, _, again = toys.go_on(remote(server), tmp_path)
    assert sorted(server.asked) == ["q1:", "q1:", "q5:", "q5:"]
    assert again[-1]["generate/unanswered"] == 0
    assert [m["step"] for m in again] == [1, 2, 3]
    assert len(rows(tmp_path / TRACES)) == 14


def test_a_wrong_key_ends_the_run_with_what_was_said(toys, tmp_path):
    with (
        serving(lambda *asked: (401, {}, b"who are you")) as server,
        pytest.raises(AlignkitError, match="answered 401"),
    ):
        toys.carry_out(remote(server), tmp_path)


def test_the_body_names_stop_strings_and_numbers_the_samples(toys, tmp_path, monkeypatch):
    from alignkit.engine.sampling.endpoint import Endpoint, Reply

    bodies = []
    monkeypatch.setattr(
        Endpoint, "_attempt", lambda self, body, most: bodies.append(body) or (Reply("ok"), 1, 0.0)
    )
    server = SimpleNamespace(url="http://localhost:1/v1")
    toys.carry_out(remote(server, data=QUESTIONS[:1]), tmp_path)
    assert [(b["stop"], b.get("seed", 0), b["temperature"]) for b in bodies] == [
        (["#"], 0, 1.0),
        (["#"], 1, 1.0),
    ]


def test_messages_of_a_chat_template_are_sent_as_they_are(toys, tmp_path, monkeypatch):
    from alignkit.engine.sampling.endpoint import Endpoint, Reply
    from alignkit_prompts import Chat

    bodies = []
    monkeypatch.setattr(
        Endpoint, "_attempt", lambda self, body, most: bodies.append(body) or (Reply("ok"), 1, 0.0)
    )
    server = SimpleNamespace(url="http://localhost:1/v1")
    prompt = Chat(system="Be brief.").build()
    toys.carry_out(remote(server, {"samples": 1}, data=QUESTIONS[:1], prompt=prompt), tmp_path)
    assert bodies[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "q0"},
    ]
    assert rows(tmp_path / TRACES)[0]["prompt"] == "Be brief.\n\nq0"


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize(
    ("keys", "tables", "at"),
    [
        ({}, {}, [""]),
        ({}, {"policy": 1}, [""]),
        ({}, {"policy": 1, "rollout": 1}, []),
        ({}, {"endpoint": 1}, []),
        ({}, {"endpoint": 1, "policy": 1}, ["endpoint"]),
        ({"min_reward": 0.5}, {"endpoint": 1}, ["min_reward"]),
        ({"min_reward": 0.5}, {"endpoint": 1, "reward": 1}, []),
        ({"samples": 2}, {"endpoint": SimpleNamespace(temperature=0)}, ["endpoint.temperature"]),
        ({"samples": 1}, {"endpoint": SimpleNamespace(temperature=0)}, []),
    ],
    ids=[
        "nobody", "no backend", "local", "remote", "both", "no reward", "reward", "greedy", "once",
    ],
)  # fmt: skip
def test_problems_the_table_names(keys, tables, at):
    assert [key for key, _ in Generate(**keys).check(tables)] == at


def test_an_endpoint_needs_a_model_and_a_url():
    assert [key for key, _ in EndpointTable().check({})] == ["url", "model"]
    with pytest.raises(ValueError, match="url"):
        EndpointTable(url="ftp://a")
