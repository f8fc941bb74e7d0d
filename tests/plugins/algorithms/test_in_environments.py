"""Algorithms whose responses are episodes: one turn is a run as ever, more resume exactly."""

import json
from pathlib import Path

import pytest
import torch

from alignkit import plugins, recipe
from alignkit.component import slots_of
from alignkit.engine.evaluation.eval_table import EvalPlan, EvalSet
from alignkit.engine.forward import logprobs as lp
from alignkit.engine.sampling.environment_table import EnvironmentParams
from alignkit.engine.tokens import TrainRow
from alignkit.episodes import EpisodeLimits, Turn
from alignkit.errors import AlignkitError, RecipeError
from alignkit.execution import Run, execute
from alignkit.kinds import KINDS
from alignkit.protocols import Environment
from alignkit.testing import registry_of
from alignkit.toml import read
from alignkit_algorithms.grpo import Grpo

ROOT = Path(__file__).resolve().parents[3]
EPISODES = {"turns", "given_tokens", "turn_truncated", "episode_truncated", "out_of_turns"}


class Wraps:
    """One turn about each question: a template and a reward as an environment."""

    def __init__(self, template, reward, turns=1):
        self.template, self.judge = template, reward
        self.limits, self.stop = EpisodeLimits(turns=turns), tuple(template.stop)

    def open(self, example, /, *, seed):
        return Wrapped(self, example)


class Wrapped:
    def __init__(self, world, example):
        self.world, self.example = world, example
        self.prompt = world.template.render(example.question)

    def step(self, response):
        (self.earned,) = self.world.judge([response], [self.example])
        return Turn("", True)

    def reward(self):
        return self.earned

    def close(self):
        pass


def without_turns(rows):
    """Drop what only episodes log."""
    return [{k: v for k, v in row.items() if k.rpartition("/")[2] not in EPISODES} for row in rows]


class OneTurn(EnvironmentParams):
    """The question, answered once; [prompt] and [reward] are the recipe's."""

    def build(self) -> Environment:
        class Bare:
            stop = ()

            def render(self, question):
                return question

        return Wraps(Bare(), lambda responses, examples: [None])


@pytest.mark.parametrize("where", ["in the tables", "in the environment"])
def test_one_turn_is_grpo_as_it_is_bit_for_bit(tmp_path, toys, where):
    """`recipes/grpo.toml`, cut short, and the same put into an environment of one turn."""
    cut = ["n_steps=2", "rollout_batch_size=32", "train_batch_size=16", "eval.n=16"]
    registry = registry_of(environment={"one_turn": OneTurn})

    def go(name, *overrides, text=""):
        path = tmp_path / f"{name}.toml"
        path.write_text(f'extends = "{ROOT}/recipes/grpo.toml"\n{text}')
        node = recipe.resolve(read(path, (), [*cut, *overrides]), registry)
        algorithm = node.build()
        if name == "wrapped":
            parts = algorithm.parts
            world = Wraps(parts.prompt, parts.reward)
            plan = parts.plan
            parts = type(parts)(
                policy=parts.policy, seed=parts.seed, token_budget=parts.token_budget,
                environment=world, backend=parts.backend, optimizer=parts.optimizer, plan=plan,
            )  # fmt: skip
            algorithm.parts = parts
        rows = toys.carry_out(algorithm, tmp_path / name)
        return toys.timeless(rows), toys.weights(algorithm.parts.policy)

    want, weights = go("plain")
    if where == "in the tables":
        got, moved = go("tables", text='[environment]\nuse = "one_turn"\nmax_turns = 1\n')
    else:
        got, moved = go("wrapped")
    assert got != want  # the metrics of episodes are there
    assert without_turns(got) == want
    assert torch.equal(moved, weights)
    name = "tables" if where == "in the tables" else "wrapped"
    for part in ("final/model.safetensors",):
        assert (tmp_path / name / part).read_bytes() == (tmp_path / "plain" / part).read_bytes()


class Hints:
    """Repeats a word after each turn, and pays for turns that begin with an ASCII character."""

    stop = tuple(map(chr, range(33, 127)))  # random bytes soon hold one of these

    def __init__(self, turns=3, fail=None):
        self.limits, self.fail, self.steps = EpisodeLimits(turns=turns), fail, 0

    def open(self, example, /, *, seed):
        return Hinted(self, example, seed)


class Hinted:
    def __init__(self, world, example, seed):
        self.world, self.seed, self.count = world, seed, 0
        self.prompt = f"{example.question}:"

    def step(self, response):
        self.world.steps += 1
        if self.world.steps == self.world.fail:
            raise OSError("the server is gone")
        self.count += 1
        good = bool(response) and response[0].isascii()
        return Turn(f" {self.seed % 97} ", self.count == 3, reward=float(good))

    def close(self):
        pass


SMALL = {"n_steps": 3, "rollout_batch_size": 8, "group_size": 4, "train_batch_size": 4}


def hinted(toys, **parts):
    given = {"prompt": None, "reward": None, "environment": Hints()}
    given |= {"backend": toys.backend(max_tokens=24), **parts}
    return toys.grpo({**SMALL, "epochs_per_rollout_batch": 2}, **given)


def test_a_run_of_many_turns_counts_sampled_tokens(toys, tmp_path):
    rows = toys.carry_out(hinted(toys), tmp_path / "run")
    last = rows[-1]
    assert last["train/turns"] == 3
    assert last["train/given_tokens"] > 0
    assert 3 <= last["train/response_length"] < 30  # a turn is some three tokens
    assert last["train/rollout_logprob_gap"] < 1e-5  # given tokens stand where they belong


@pytest.mark.parametrize("fail", [1, 30, 50])
def test_ended_within_an_episode_it_goes_on_as_if_nothing_had_happened(toys, tmp_path, fail):
    """8 episodes of 3 turns a step: 24 steps of the environment are one of the run's."""
    whole = hinted(toys)
    rows = toys.carry_out(whole, tmp_path / "whole")
    with pytest.raises(AlignkitError, match=r"environment raised OSError: the server is gone"):
        toys.carry_out(hinted(toys, environment=Hints(fail=fail)), tmp_path / "cut")
    resumed = hinted(toys)
    _, _, got = toys.go_on(resumed, tmp_path / "cut")
    assert toys.timeless(got) == toys.timeless(rows)
    assert torch.equal(toys.weights(resumed.parts.policy), toys.weights(whole.parts.policy))
    for file in ("rollouts/step_000003.jsonl", "final/model.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_resumed_step_keeps_the_episodes_it_has(toys, ended, tmp_path):
    whole, cut = hinted(toys), hinted(toys)
    rows = toys.carry_out(whole, tmp_path / "whole")
    ended(cut, tmp_path / "cut", before=6)  # the second update of step 2
    resumed = hinted(toys)
    _, _, got = toys.go_on(resumed, tmp_path / "cut")
    assert toys.timeless(got) == toys.timeless(rows)
    assert resumed.parts.environment.steps == 24  # of step 3 alone


def test_evaluation_plays_episodes_and_counts_them(toys, tmp_path):
    own = EvalSet(data=toys.questions(2), environment=Hints(turns=1))
    plan = EvalPlan({"": EvalSet(data=toys.questions(3), samples=2), "own": own}, 3)
    rows = toys.carry_out(hinted(toys, plan=plan), tmp_path / "run")
    assert (rows[0]["eval/turns"], rows[0]["eval/own/turns"]) == (3, 1)
    assert rows[0]["eval/own/out_of_turns"] == 1
    assert rows[0]["eval/token_entropy"] > 0
    (line, *_) = (tmp_path / "run/eval/step_000000.jsonl").read_text().splitlines()
    assert '"observation"' in line


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
def test_the_gradient_of_given_tokens_is_exactly_zero(toys, monkeypatch, packs, gradients_where):
    monkeypatch.setattr(lp, "can_pack", lambda model: packs)
    flags = (False, False, True, True, True, False, True, False)
    row = TrainRow((5, 6, 7), (8, 9, 10, 11, 12, 13, 14, 15), given=flags)
    assert gradients_where(toys.policy(), row) == [not given for given in flags]


def test_prompt_and_reward_are_required_unless_there_is_an_environment():
    slots = slots_of(Grpo, KINDS)
    assert {(s.name, s.unless) for s in slots.values() if s.unless} == {
        ("prompt", "environment"),
        ("reward", "environment"),
    }
    assert slots["prompt"].required
    assert not slots["environment"].required


def test_a_recipe_without_either_is_refused(tmp_path):
    text = (ROOT / "recipes/grpo.toml").read_text()
    text = text.replace('[prompt]\nuse = "r1_zero"\n', "")
    text = text.replace('[reward]\nuse = "r1_zero"\n', "").replace("../data", f"{ROOT}/data")
    path = tmp_path / "mine.toml"
    path.write_text(text)
    registry = registry_of(environment={"one_turn": OneTurn})
    with pytest.raises(RecipeError) as refused:
        recipe.resolve(read(path), registry)
    said = str(refused.value)
    assert "needs a table [prompt] choosing a prompt_template" in said
    assert "needs a table [reward] choosing a reward_fn" in said
    assert "[environment] does in its place" in said
    path.write_text(text + '[environment]\nuse = "one_turn"\nmax_turns = 4\n')
    node = recipe.resolve(read(path), registry)
    assert "prompt" not in node.children
    facts = node.params.facts(node.tables())
    assert facts["response tokens per step, at most"] == "128 × 192 = 24,576"


def test_an_error_of_an_evaluation_sets_environment_names_its_component(toys, tmp_path):
    plan = EvalPlan({"own": EvalSet(data=toys.questions(2), environment=Hints(fail=1))})
    subject = toys.grpo(SMALL, plan=plan)
    run = Run(tmp_path, {"eval": {"sets": {"own": {"environment": {"use": "hints"}}}}})
    with pytest.raises(AlignkitError, match="environment 'hints' raised OSError"):
        subject.run(run)
    run.close("failed")


EVALUATE = """
use = "evaluate"
n = 2
[policy]
use = "hf"
path = "{policy}"
[data]
use = "jsonl"
path = "rows.jsonl"
[environment]
use = "guess"
max_turns = 2
[rollout]
use = "hf"
max_tokens = 6
"""


def test_an_evaluation_alone_may_be_in_an_environment(tmp_path, tiny_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"question": "Guess.", "answer": "any"}\n' * 3)
    path = tmp_path / "evaluate.toml"
    path.write_text(EVALUATE.format(policy=tiny_folder))
    run = execute(recipe.load(path, plugins.load()), path, tmp_path / "out", ["alignkit"])
    (row,) = map(json.loads, (run.dir / "metrics.jsonl").read_text().splitlines())
    assert (row["eval/n"], row["eval/reward"]) == (2, 0.0)
    assert 1 <= row["eval/turns"] <= 2
    (first, _) = map(json.loads, (run.dir / "eval/step_000000.jsonl").read_text().splitlines())
    assert first["prompt"].startswith("Guess.\nA number from 1 to 100")
    assert first["turns"][0]["tokens"] <= 6
