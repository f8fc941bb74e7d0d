"""What every algorithm refuses before anything is loaded."""

import pytest

from alignkit.engine.evaluation.eval_table import EvalTable
from alignkit.engine.sampling.rollout_table import SamplingParams
from alignkit_algorithms.dpo import Dpo
from alignkit_algorithms.evaluate import Evaluate
from alignkit_algorithms.sft import Sft
from alignkit_data import Jsonl


@pytest.mark.parametrize("keys", [Sft(), Dpo()], ids=["sft", "dpo"])
def test_several_greedy_responses_to_an_example_are_refused(keys):
    greedy = {"rollout": SamplingParams(temperature=0.0)}
    ((key, message),) = keys.check({**greedy, "eval": EvalTable(samples=4)})
    assert key == "eval.samples"
    assert "4 responses to an example would be equal" in message
    assert not list(keys.check({**greedy, "eval": EvalTable(samples=1)}))
    assert not list(keys.check({**greedy, "eval": EvalTable(samples=4, temperature=0.5)}))
    assert not list(keys.check({"rollout": SamplingParams(), "eval": EvalTable(samples=4)}))


def test_an_evaluation_refuses_them_too():
    tables = {"rollout": SamplingParams(temperature=0.0), "data": object()}
    ((key, _),) = Evaluate(samples=4).check(tables)
    assert key == "samples"
    assert not list(Evaluate(samples=4, temperature=0.5).check(tables))
    assert not list(Evaluate().check(tables))


@pytest.mark.parametrize("slot", ["data", "validation"])
@pytest.mark.parametrize(
    ("table", "key"),
    [(Sft, "response_column"), (Dpo, "chosen_column"), (Dpo, "rejected_column")],
)
def test_a_column_that_is_the_answer_already_is_refused(table, key, slot):
    """Rows whose prompt is formatted already have the response in the answer column."""
    wrong = table(**{key: "said"}).check({slot: Jsonl(path="hub/rows", answer="said")})
    (message,) = [message for at, message in wrong if at == key]
    assert f"[{slot}] takes the column 'said' as its answer" in message
    assert f'{key} = ""' in message
    for name in ("answer", "a.said"):
        data = Jsonl(path="hub/rows", answer=name)
        wrong = table(**{key: "a.said"}).check({slot: data})
        assert key not in [at for at, _ in wrong]
