"""Several sets, evaluated together."""

from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignkit.engine.evaluation import evaluator as evaluator_module
from alignkit.engine.evaluation.eval_table import (
    EvalSet,
)
from alignkit.engine.evaluation.evaluator import fixed_subset
from alignkit.protocols import Example
from evaluation_fakes import Template, Tokenizer, problems, strict

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
