"""The judge through a rollout backend: any policy can judge, in whatever batches it is asked."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from alignkit import plugins, recipe
from alignkit.engine.sampling.local_model import LocalModel
from alignkit.protocols import Example
from alignkit.testing import run_cli
from alignkit_rewards import Judge

RECIPE = Path(__file__).parents[3] / "recipes" / "supplement" / "judge.toml"


@pytest.fixture
def parts(tiny_folder):
    """A policy of random weights and the `hf` backend, which counts how often it is used."""
    from alignkit_hf import HfPolicy, HfRollout

    class Counted:
        def __init__(self, inner):
            self.inner, self.calls = inner, []

        @property
        def sampling(self):
            return self.inner.sampling

        def start(self, policy):
            self.calls.append("start")
            self.inner.start(policy)

        def generate(self, prompts, sampling):
            self.calls.append(len(prompts))
            return self.inner.generate(prompts, sampling)

        def close(self):
            self.calls.append("close")
            self.inner.close()

    policy = HfPolicy(path=str(tiny_folder)).build()
    return policy, Counted(HfRollout(max_tokens=12).build())


def test_a_reply_depends_on_its_text_alone(parts):
    texts = [f"text {n}" for n in range(6)]
    model = LocalModel(*parts)
    together = model.ask_all(texts)
    again = LocalModel(*parts)
    assert [again.ask_all([text])[0] for text in reversed(texts)] == together[::-1]
    assert len(set(together)) > 1


def test_nothing_is_asked_twice_and_the_backend_is_started_when_needed(parts):
    model = LocalModel(*parts)
    calls = parts[1].calls
    assert calls == []
    first = model.ask_all(["a", "b", "a"])
    assert first[0] == first[2]
    assert model.ask_all(["b", "c"])[0] == first[1]
    model.close()
    model.close()
    assert calls == ["start", 2, 1, "close"]


def test_one_that_was_never_asked_starts_and_closes_nothing(parts):
    LocalModel(*parts).close()
    assert parts[1].calls == []


def test_texts_that_fill_the_policy_have_no_reply_and_the_others_do(parts):
    found = LocalModel(*parts).ask_all(["x" * 2000, "short"])
    assert found[0] is None
    assert isinstance(found[1], str)


def test_a_template_stands_around_the_text_and_its_stop_ends_the_reply(parts):
    from alignkit_prompts.template import TextTemplate

    seen = []

    def generate(prompts, sampling):
        seen.append((parts[0].tokenizer.decode(list(prompts[0])), sampling.stop, sampling.n))
        return parts[1].inner.generate(prompts, sampling)

    parts[1].generate = generate
    LocalModel(*parts, TextTemplate("<<{question}>>", stop=("!",))).ask_all(["q"])
    assert seen == [("<<q>>", ("!",), 1)]


def test_verdicts_are_read_and_the_unjudged_marked(parts, tmp_path):
    (tmp_path / "judge.txt").write_text("{response}")
    judge = Judge(prompt=tmp_path / "judge.txt", pattern="(7)", worst=0.0, best=7.0)

    class Says:
        def ask_all(self, texts):
            return [{"good": "A 7.", "bad": "Hm."}.get(text) for text in texts]

        def close(self):
            self.closed = True

    policy, backend = parts
    reward = judge.build(policy=policy, rollout=backend)
    reward._model = Says()
    found = reward(["good", "bad", "other"], [Example("a", "q", "g")] * 3)
    assert [r.parts["unjudged"] for r in found] == [0, 1, 1]
    assert [r.total for r in found] == [1.0, 1.0, 1.0]
    reward.close()
    assert reward._model.closed


@pytest.mark.parametrize(
    ("keys", "tables", "said"),
    [
        ({}, {}, {"url", "model"}),
        ({"url": "http://a/v1"}, {}, {"model"}),
        ({}, {"policy": 1}, {""}),
        ({}, {"rollout": 1, "policy": 1}, set()),
        ({"url": "http://a/v1", "retries": 9}, {"rollout": 1, "policy": 1}, {"url", "retries"}),
    ],
    ids=["nothing", "no model", "no backend", "local", "both"],
)
def test_an_endpoint_or_a_policy_and_not_both(tmp_path, keys, tables, said):
    (tmp_path / "judge.txt").write_text("{response}")
    judge = Judge(prompt=tmp_path / "judge.txt", **keys)
    assert {key for key, _ in judge.check(tables)} == said


def test_the_recipe_judges_with_the_backend_it_names(tmp_path):
    done = run_cli("run", RECIPE, "--out", tmp_path / "run")
    assert done.status == 0, done.stderr
    row = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert row["eval/n"] == pytest.approx(10 * (1 - row["eval/unjudged"]))
    assert row["eval/n"] > 0
    lines = (tmp_path / "run/eval/step_000000.jsonl").read_text().splitlines()
    for judged in map(json.loads, lines):
        assert judged["unjudged_reward"] in (0.0, 1.0)
        assert ("judge_reward" in judged) == (judged["unjudged_reward"] == 0)


def test_a_cache_of_the_command_line_may_be_new(tmp_path):
    overrides = [f"reward.cache={tmp_path}/replies.jsonl", "reward.url=http://localhost:1/v1"]
    prompt = RECIPE.with_name("judge.txt")
    reward = f'[reward]\nuse = "judge"\nprompt = "{prompt}"\n'
    extends = f'extends = "{RECIPE.with_name("simple_safety_tests.toml")}"\n'
    (tmp_path / "judge.toml").write_text(extends + reward)
    node = recipe.load(
        tmp_path / "judge.toml", plugins.load(), overrides=[*overrides, "reward.model=m"]
    )
    assert node.children["reward"].params.cache == tmp_path / "replies.jsonl"


def test_sampling_of_the_table_is_kept(parts):
    policy, backend = parts
    how = replace(backend.sampling, temperature=0.0)
    backend.inner.sampling = how
    first = LocalModel(policy, backend).ask_all(["a", "b"])
    assert first == LocalModel(policy, backend).ask_all(["a", "b"])
