"""The table [eval]: its slots, its problems, and what it builds."""

from types import SimpleNamespace

import pytest

from alignkit.component import slots_of
from alignkit.docs import field_docs
from alignkit.engine.evaluation.eval_table import (
    EvalPlan,
    EvalSet,
    EvalSetTable,
    EvalTable,
    complete,
)
from alignkit.errors import AlignkitError
from alignkit.kinds import KINDS
from alignkit.protocols import Sampling
from evaluation_fakes import Backend, Template, judge, problems, strict


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
