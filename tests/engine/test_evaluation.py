"""Evaluation: the same problems and draws every time, judged as the table says."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignkit.component import slots_of
from alignkit.docs import field_docs
from alignkit.engine.evaluation import evaluator as evaluator_module
from alignkit.engine.evaluation.entropies import token_entropies
from alignkit.engine.evaluation.eval_table import (
    EvalPlan,
    EvalSet,
    EvalSetTable,
    EvalTable,
    complete,
)
from alignkit.engine.evaluation.evaluator import Evaluator, eval_sampling, fixed_subset
from alignkit.engine.sampling.rollouts import Trajectory
from alignkit.errors import AlignkitError
from alignkit.execution import Run
from alignkit.kinds import KINDS
from alignkit.protocols import Completion, Example, Reward, Sampling


class Template:
    stop = ("END",)

    def __init__(self, mark="?"):
        self.mark = mark

    def render(self, question):
        return question + self.mark


class Tokenizer:
    def encode(self, text, add_special_tokens):
        return [2 + ord(c) % 20 for c in text]


class Backend:
    """Answers a prompt of key k: sample j is right when j < k % 3; lengths differ."""

    sampling = Sampling(temperature=0.7, max_tokens=9)

    def __init__(self, policy):
        self.policy, self.calls = policy, []

    def generate(self, prompts, sampling):
        self.calls.append(sampling)
        return [[self.answer(key, j) for j in range(sampling.n)] for key in sampling.prompt_keys]

    def answer(self, key, j):
        text = f"<answer> {key if j < key % 3 else -1} </answer>"
        ids = (3, 4, 5, 6)[: 1 + key % 4]
        return Completion(text, ids, (0.0,) * len(ids), "stop", self.policy.version)


def judge(responses, examples):
    right = [
        r == f"<answer> {e.answer} </answer>" for r, e in zip(responses, examples, strict=True)
    ]
    return [Reward(float(x), {"format": 1.0, "answer": float(x)}) for x in right]


def strict(responses, examples):
    return [Reward(0.0, {"format": 0.0, "answer": 0.0}) for _ in responses]


def problems(count, long=()):
    return [Example(f"id{i}", "q" * (90 if i in long else 2), str(i)) for i in range(count)]


@pytest.fixture
def evaluator(tiny_policy):
    def make(*, prompt=None, reward=judge, every=1, **sets):
        policy = tiny_policy()
        policy.tokenizer = Tokenizer()
        plan = EvalPlan({k.removeprefix("main"): v for k, v in sets.items()}, every)
        return Evaluator(
            plan,
            policy=policy,
            backend=Backend(policy),
            prompt=prompt or Template(),
            reward=reward,
            token_budget=64,
        )

    return make


def test_metrics_and_rows(evaluator):
    metrics, rows = evaluator(main=EvalSet(data=problems(6))).evaluate()
    # Keys 0 … 5: right when key % 3 ≥ 1, that is 1 2 4 5. Lengths 1 + key % 4: 1 2 3 4 1 2.
    assert metrics["answer_reward"] == metrics["reward"] == pytest.approx(4 / 6)
    assert metrics["format_reward"] == 1.0
    assert metrics["response_length"] == pytest.approx(13 / 6)
    assert metrics["response_length_correct"] == pytest.approx((2 + 3 + 1 + 2) / 4)
    assert metrics["response_length_incorrect"] == pytest.approx((1 + 4) / 2)
    assert (metrics["n_correct"], metrics["n_format_only"], metrics["n_neither"]) == (4, 2, 0)
    assert (metrics["n"], metrics["truncated"], metrics["prompts_too_long"]) == (6, 0, 0)
    # Four 1 and two 0: variance (ddof 1) 4/15, over 6.
    assert metrics["answer_reward_se"] == pytest.approx((4 / 15 / 6) ** 0.5)
    assert not any("@" in name for name in metrics)
    entropy = rows[2].pop("token_entropy")
    assert 0 < entropy < torch.tensor(29.0).log()
    assert rows[2] == {
        "prompt_id": 2,
        "group_id": 2,
        "id": "id2",
        "question": "qq",
        "gold": "2",
        "prompt": "qq?",
        "response": "<answer> 2 </answer>",
        "reward": 1.0,
        "format_reward": 1.0,
        "answer_reward": 1.0,
        "response_length": 3,
        "finish_reason": "stop",
        "category": "correct",
    }


def test_several_samples(evaluator):
    metrics, rows = evaluator(main=EvalSet(data=problems(3), samples=2)).evaluate()
    # Right of 2 samples: 0, 1, 2. The tie of example 1 counts one half.
    assert metrics["pass@1"] == metrics["answer_reward"] == 0.5
    assert metrics["pass@2"] == pytest.approx(2 / 3)
    assert metrics["majority@2"] == pytest.approx((0 + 0.5 + 1) / 3)
    assert metrics["n"] == 3
    assert len(rows) == 6
    assert metrics["answer_reward_se"] == pytest.approx(0.5 / 3**0.5)


def test_entropy_is_the_policys_own_over_response_tokens(tiny_policy):
    policy = tiny_policy()
    reward = Reward(0.0)
    example = Example("0", "q", "a")
    trajectories = [
        Trajectory(
            0, 0, example, "p", prompt, Completion("x", ids, (0.0,) * len(ids), "stop", 0), reward
        )
        for prompt, ids in [((3, 4), (5, 6, 7)), ((9,), ()), ((9, 2, 8), (10,))]
    ]
    got = token_entropies(policy, trajectories, token_budget=5)
    assert [len(e) for e in got] == [3, 0, 1]
    for trajectory, found in zip(trajectories, got, strict=True):
        ids = torch.tensor([[*trajectory.prompt_ids, *trajectory.completion.token_ids]])
        log_p = torch.log_softmax(policy.model(input_ids=ids).logits[0], -1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        # Predicting positions: from the last prompt token to the last but one of the response.
        first = len(trajectory.prompt_ids) - 1
        expected = entropy[first : first + len(found)]
        torch.testing.assert_close(found.double(), expected.detach(), rtol=0, atol=1e-10)


def test_the_subset_is_fixed_by_the_sets_seed(tiny_policy):
    policy = tiny_policy()
    policy.tokenizer = Tokenizer()

    def rows(seed, n=5):
        chosen = EvalSet(data=problems(20), n=n, seed=seed)
        return [p.index for p in fixed_subset(chosen, Template(), policy)]

    assert rows(0) == rows(0) == sorted(rows(0)) != rows(1)
    assert len(set(rows(0))) == 5
    assert set(rows(0)) < set(rows(0, n=8))  # a larger subset holds the smaller
    assert rows(0, n=0) == rows(0, n=99) == list(range(20))


def test_an_empty_set_is_an_error(tiny_policy):
    with pytest.raises(AlignkitError, match="no examples"):
        fixed_subset(EvalSet(data=[]), Template(), tiny_policy())


def test_draws_do_not_depend_on_the_training_step(evaluator, tmp_path):
    subject = evaluator(main=EvalSet(data=problems(6), n=3, seed=4))
    run = Run(tmp_path, {})
    assert subject.run(run, 0).keys() == subject.run(run, 7).keys()
    run.close("done")
    first, second = subject._backend.calls
    assert first == second
    assert (first.seed, first.step) == (4, 0)


def test_a_set_overrides_sampling_and_leaves_the_rest():
    base = Sampling(temperature=0.7, max_tokens=9, top_p=0.9)
    got = eval_sampling(EvalSet(data=[], samples=3, temperature=0.0), Template(), base)
    assert got == replace(base, n=3, temperature=0.0, stop=("END",))
    got = eval_sampling(EvalSet(data=[], max_tokens=5), Template(), base)
    assert got == replace(base, n=1, max_tokens=5, stop=("END",))


def test_questions_too_long_to_answer_count_as_wrong(evaluator):
    metrics, rows = evaluator(main=EvalSet(data=problems(6, long=(1,)))).evaluate()
    assert metrics["prompts_too_long"] == 1
    assert metrics["n"] == 6
    assert metrics["answer_reward"] == pytest.approx(3 / 6)  # not 3/5
    assert rows[1]["response"] == ""
    assert rows[1]["token_entropy"] is None


def test_named_sets_log_under_their_names(evaluator, tmp_path):
    subject = evaluator(
        main=EvalSet(data=problems(3)),
        hard=EvalSet(data=problems(3), prompt=Template("!"), reward=strict),
    )
    run = Run(tmp_path, {})
    metrics = subject.run(run, 5)
    run.close("done")
    assert metrics["eval/answer_reward"] == pytest.approx(2 / 3)
    assert metrics["eval/hard/answer_reward"] == 0.0
    assert metrics["eval/hard/n_neither"] == 3
    assert metrics["time/eval"] > 0

    def first_prompt(file):
        return json.loads((tmp_path / file).read_text().splitlines()[0])["prompt"]

    assert first_prompt("eval/step_000005.jsonl") == "qq?"
    assert first_prompt("eval/hard/step_000005.jsonl") == "qq!"


def test_when_evaluation_is_due():
    plan = EvalPlan({}, every=4)
    assert [s for s in range(11) if plan.due(s, last=10)] == [0, 4, 8, 10]


def test_a_set_without_prompt_or_reward_says_which():
    plan = EvalPlan({"hard": EvalSet(data=[])})
    with pytest.raises(AlignkitError, match=r"\[eval.sets.hard\] has no reward"):
        complete(plan, Template(), None)
    with pytest.raises(AlignkitError, match=r"\[eval\] has no prompt"):
        complete(EvalPlan({"": EvalSet(data=[])}), None, judge)


def test_the_table_has_the_slots_it_documents():
    slots = slots_of(EvalTable, KINDS)
    assert {name: (s.kind, s.arity, s.required) for name, s in slots.items()} == {
        "data": ("dataset", "one", False),
        "prompt": ("prompt_template", "one", False),
        "reward": ("reward_fn", "one", False),
        "environment": ("environment", "one", False),
        "sets": ("", "map", False),
    }
    assert slots["sets"].table is EvalSetTable
    assert slots_of(EvalSetTable, KINDS)["data"].required


def test_what_the_table_builds():
    data, other = problems(2), problems(3)
    table = EvalTable(n=7, seed=3, samples=2, temperature=0.5, max_tokens=8, every=4)
    hard = EvalSetTable().build(data=other, reward=strict)
    assert table.build(data=data, sets={"hard": hard}) == EvalPlan(
        {
            "": EvalSet(data=data, n=7, seed=3, samples=2, temperature=0.5, max_tokens=8),
            "hard": EvalSet(data=other, n=256, reward=strict),
        },
        every=4,
    )
    assert list(table.build(sets={"hard": hard}).sets) == ["hard"]


def test_problems_the_table_names():
    ((key, message),) = EvalTable().check({})
    assert key == ""
    assert "[eval.data]" in message
    assert not list(EvalTable().check({"data": object()}))
    given = {"data": SimpleNamespace(order="given")}
    assert [key for key, _ in EvalTable().check(given)] == ["data.order"]
    ((key, message),) = EvalSetTable(samples=4, temperature=0.0).check({"data": object()})
    assert key == "samples"
    assert "all 4 responses to an example would be equal" in message


def test_every_field_is_documented():
    for table in (EvalTable, EvalSetTable):
        assert all(field_docs(table).values())


def test_tables_need_no_ml_stack():
    import subprocess
    import sys

    code = (
        "import sys, alignkit_algorithms, alignkit.engine.evaluation.eval_table, "
        "alignkit.engine.learning.reference_table; "
        "bad = {'torch', 'transformers', 'numpy'} & set(sys.modules); sys.exit(str(bad or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize(
    ("own", "base", "refused"),
    [(None, 0.0, True), (0.0, 1.0, True), (0.7, 0.0, False), (None, 0.7, False)],
)
@pytest.mark.parametrize("name", ["", "hard"])
def test_greedy_draws_are_made_once(evaluator, monkeypatch, own, base, refused, name):
    monkeypatch.setattr(Backend, "sampling", Sampling(temperature=base, max_tokens=9))
    sets = {name or "main": EvalSet(data=problems(3), samples=4, temperature=own)}
    if not refused:
        evaluator(**sets)
        return
    where = f"eval.sets.{name}" if name else "eval"
    with pytest.raises(AlignkitError, match=rf"{where}.samples = 4, but temperature 0 is greedy"):
        evaluator(**sets)
    one = {name or "main": EvalSet(data=problems(3), samples=1, temperature=own)}
    evaluator(**one)


# ---------------------------------------------------------------- many sets

ALIKE = st.fixed_dictionaries(
    {
        "size": st.integers(1, 5),
        "samples": st.integers(1, 3),
        "seed": st.integers(0, 1),
        "max_tokens": st.sampled_from([None, 5]),
        "own_prompt": st.booleans(),
        "reward": st.sampled_from([None, strict]),
    }
)


def set_of(choice):
    chosen = {key: choice[key] for key in ("samples", "seed", "max_tokens", "reward")}
    prompt = Template("!") if choice["own_prompt"] else None
    return EvalSet(data=problems(choice["size"]), prompt=prompt, **chosen)


@given(choices=st.lists(ALIKE, min_size=1, max_size=6), most=st.sampled_from([1, 6, 1024]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_sets_are_measured_together_as_they_are_one_by_one(evaluator, choices, most):
    sets = {f"s{i}": set_of(choice) for i, choice in enumerate(choices)}
    subject, written = evaluator(**sets), {}
    run = SimpleNamespace(rows=lambda step, name, rows: written.update({name: rows}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator_module, "_TOGETHER", most)
        metrics = subject.run(run, 3)
    metrics.pop("time/eval")
    expected = {name: subject.evaluate(name) for name in sets}
    assert metrics == {
        f"eval/{name}/{key}": value
        for name, (measured, _) in expected.items()
        for key, value in measured.items()
    }
    assert [*metrics] == [f"eval/{n}/{key}" for n in sets for key in expected[n][0]]
    assert written == {f"eval/{name}": rows for name, (_, rows) in expected.items()}


def test_sets_that_sample_alike_share_a_call_up_to_a_number_of_responses(evaluator, monkeypatch):
    monkeypatch.setattr(evaluator_module, "_TOGETHER", 12)
    alike = {f"s{i}": EvalSet(data=problems(3), samples=2) for i in range(3)}
    other, large = EvalSet(data=problems(2), seed=7), EvalSet(data=problems(30), samples=2)
    subject = evaluator(**alike, other=other, large=large, more=EvalSet(data=problems(2), seed=7))
    calls = [*subject._calls()]
    assert sorted(name for names in calls for name in names) == sorted([*subject._sets])
    assert calls == [["s0", "s1"], ["s2"], ["other", "more"], ["large"]]
    run = SimpleNamespace(rows=lambda step, name, rows: None)
    subject.run(run, 0)
    assert len(subject._backend.calls) == len(calls)


@pytest.mark.parametrize("n", [1024, 5000])
def test_a_seed_draws_any_so_many_of_all_problems_of_math(tiny_policy, n):
    """Each seed another 1,024 of 5,000, the same every time, in the order of the data."""
    data = [Example(f"m{i}", f"q{i}", "1") for i in range(5000)]

    policy = tiny_policy()
    policy.tokenizer = Tokenizer()

    def drawn(seed):
        prompts = fixed_subset(EvalSet(data=data, n=n, seed=seed), Template(), policy)
        return [p.example.id for p in prompts]

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert first == again == sorted(first, key=lambda name: int(name[1:]))
    assert len(set(first)) == n
    if n < 5000:
        assert 100 < len(set(first) & set(other)) < 350  # 1024² / 5000 = 210 by chance
    else:
        assert first == other == [e.id for e in data]
