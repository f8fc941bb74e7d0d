"""The check of algorithms on two processes: what passes it, and a planted bug it catches."""

from types import SimpleNamespace

import pytest

from alignkit import Params, plugins
from alignkit.plugin_files import with_files
from alignkit.protocols import Algorithm
from alignkit.testing import checks, registry_of, run_cli
from alignkit_testing.several import is_same

LONGEST = '''
import os
from typing import Unpack
from alignkit import Component, Params, hookimpl
from alignkit.protocols import Algorithm, Dataset, Normalizer
from alignkit.training import SamplingSlots, Training, training


class Longest(Params[Algorithm]):
    """Learns the longest response to each question."""

    seed: int = 0
    """Fixes questions and responses."""

    token_budget: int = 512
    """Tokens in a micro-batch."""

    def build(self, *, data: Dataset, normalizer: Normalizer, **shared: Unpack[SamplingSlots]):
        from alignkit.engine.learning.supervised import nll

        def train(t: Training):
            for _ in t.steps(2):
                sampled = t.sample(data, 8, group_size=2)
                kept = [max(sampled[i : i + 2], key=len_of) for i in range(0, 8, 2)]
                kept = kept[KEPT]
                done = [t.update(t.rows(kept).whole, nll, normalizer)]
                t.sync()
                t.save_rollouts(kept, 1)
                t.log(t.means(done), t.summary(sampled), kept=len(kept))
            return t.finish()

        return training(self, train, **shared)


def len_of(trajectory):
    return len(trajectory.completion.token_ids)


@hookimpl
def algorithm():
    yield Component("longest", Longest)
'''
PLAIN = '''
from alignkit import Component, Params, hookimpl
from alignkit.protocols import Algorithm


class Plain(Params[Algorithm]):
    """Logs two numbers, in a process of its own."""

    def build(self):
        return self

    def run(self, run):
        for step in range(2):
            run.log(step, {"train/loss": 1.0 / (step + 1)})
        return {"train/loss": 0.5}


@hookimpl
def algorithm():
    yield Component("plain", Plain)
'''
WORLD = 'int(os.environ.get("WORLD_SIZE", 1))'


def case(name, registry):
    cases = checks(name, registry=registry, ranks=2)
    (found,) = [c for c in cases if c.id.endswith("/gives_the_same_on_ranks")]
    return found


def planted(tmp_path, name, kept="slice(None)"):
    file = tmp_path / f"{name}.py"
    file.write_text(LONGEST.replace("KEPT", kept))
    return case(name, with_files(plugins.load(), [file]))


@pytest.mark.slow
def test_an_algorithm_that_divides_its_work_passes(tmp_path):
    planted(tmp_path, "sound").run()


@pytest.mark.slow
def test_an_algorithm_that_learns_from_less_on_two_processes_is_caught(tmp_path):
    wrong = planted(tmp_path, "lesser", f"slice({WORLD} - 1, None)")
    with pytest.raises(AssertionError, match=r"on 2 processes differs from one process in .*train"):
        wrong.run()


@pytest.mark.parametrize(
    ("one", "many", "said"),
    [
        ([{"step": 1}], [{"step": 1}, {"step": 2}], "1, 2"),
        ([{"step": 1, "loss": 1.0}], [{"step": 1, "loss": 1.00002}], "loss"),
        ([{"step": 1, "loss": 1.0}], [{"step": 1, "loss": None}], "loss"),
        ([{"step": 1, "loss": 1.0}], [{"step": 1}], "loss"),
    ],
    ids=["steps", "apart", "not-finite", "missing"],
)
def test_rows_that_differ_are_told_apart(one, many, said):
    with pytest.raises(AssertionError, match=said):
        is_same(one, many, 2)


def test_times_may_differ_and_sums_may_be_rounded_otherwise():
    one = {"step": 1, "loss": 1.0, "time": 3.0, "time/update": 1.0}
    is_same([one], [{"step": 1, "loss": 1.000001, "time": 4.0, "time/update": 2.0}], 2)


@pytest.mark.parametrize(("divides", "said"), [(True, "in memory only"), (False, "refused")])
def test_what_other_processes_cannot_run_is_skipped_with_the_reason(divides, said):
    class Made(Params[Algorithm]):
        """An algorithm made up by a test."""

        def build(self):
            return SimpleNamespace(on_ranks=divides, run=None)

    with pytest.raises(pytest.skip.Exception, match=said):
        case("mine", registry_of(algorithm={"made": Made})).run()


def test_it_is_done_where_it_is_asked_for(file):
    ids = [c.id for c in checks("algorithms")]
    assert not [name for name in ids if "on_ranks" in name]
    asked = run_cli("check", "mine.py", "--ranks", "2")
    assert asked.status == 0, asked.stdout + asked.stderr
    assert "skipped: it does not divide its work" in asked.stdout


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PLAIN)
