"""Processor time grows as it must: with the problems of an evaluation, the tokens of a response."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from alignkit import plugins
from alignkit.engine.evaluation.eval_table import EvalPlan
from alignkit.engine.evaluation.evaluator import Evaluator
from alignkit.execution import built
from alignkit.recipe import load
from alignkit.shipped import path_from

TIMES = 4
PROBLEMS = 160


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    path = path_from("alignkit:recipes/evaluate.toml", tmp_path_factory.mktemp("here"))
    parts = built(load(path, plugins.load(), (), ["n=8"])).parts
    parts.backend.start(parts.policy)
    yield parts
    parts.backend.close()


@pytest.fixture
def evaluated(parts):
    [base] = parts.plan.sets.values()

    def make(count):
        """Return as many sets, of the same problems in all."""
        data = [base.data[i] for i in range(PROBLEMS)]
        each = PROBLEMS // count
        sets = {
            f"s{i}": replace(base, data=data[i * each : (i + 1) * each], n=0) for i in range(count)
        }
        return Evaluator(
            EvalPlan(sets),
            policy=parts.policy,
            backend=parts.backend,
            prompt=parts.prompt,
            reward=parts.reward,
            token_budget=parts.token_budget,
        )

    return make


@pytest.mark.slow
def test_many_small_sets_cost_about_as_much_as_one_and_measure_the_same(cpu_seconds, evaluated):
    written = {}
    run = SimpleNamespace(rows=lambda step, name, rows: written.update({name: rows}))
    one, many = evaluated(1), evaluated(5 * TIMES)
    alone = cpu_seconds(one.run, run, 0)
    assert cpu_seconds(many.run, run, 0) < 1.4 * alone
    for name in many.plan.sets:
        assert written[f"eval/{name}"] == many.evaluate(name)[1]


@pytest.mark.slow
def test_the_time_for_a_response_grows_with_its_tokens(cpu_seconds, parts):
    prompts = [tuple(range(5, 35))] * 2

    def sample(tokens):
        how = replace(parts.backend.sampling, n=2, max_tokens=tokens, min_tokens=tokens)
        assert {len(c.token_ids) for g in parts.backend.generate(prompts, how) for c in g} == {
            tokens
        }

    sample(20)
    assert cpu_seconds(sample, 350 * TIMES) < 1.7 * TIMES * cpu_seconds(sample, 350)
