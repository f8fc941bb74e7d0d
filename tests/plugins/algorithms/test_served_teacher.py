"""A teacher behind a vLLM server, here a stand-in that answers as vLLM 0.32 does.

The real one is asked in tests/plugins/vllm/test_vllm_server.py.
"""

import time
from pathlib import Path

import pytest
import torch

from alignkit import AlignkitError
from alignkit.engine.forward.frozen import detached_logprobs
from alignkit.engine.learning.reference_table import Reference
from alignkit.engine.tokens import TrainRow
from alignkit.protocols import Example
from alignkit.testing import run_cli
from alignkit_algorithms.distill import Distill
from alignkit_algorithms.dpo import Dpo
from alignkit_vllm import VllmTeacher

KEYS = {"n_steps": 3, "rollout_batch_size": 16, "group_size": 4, "train_batch_size": 8}
ROWS = [
    TrainRow((3, 4), (5, 6, 7)),
    TrainRow((3, 4), ()),
    TrainRow((9,), (10, 11, 12), given=(False, True, False)),
]


@pytest.fixture
def served(serving, teacher):
    with serving(teacher) as server:
        yield server


@pytest.fixture
def distill(toys):
    def make(teacher, **parts):
        given = {
            "policy": toys.policy(),
            "data": toys.questions(),
            "prompt": toys.Template(),
            "reward": toys.first_is_ascii,
            "loss": toys.loss("no_clip"),
            "normalizer": toys.normalizer("token_mean"),
            "backend": toys.backend(),
            "optimizer": toys.adamw(1e-2),
        }
        return toys.assemble(Distill(**KEYS), teacher=teacher, **{**given, **parts})

    return make


def test_a_run_is_that_with_the_same_teacher_in_this_process(
    distill, toys, teacher, served, tmp_path
):
    runs = [distill(t) for t in (teacher, VllmTeacher(url=served.url).build())]
    near, far = (toys.carry_out(r, tmp_path / str(i)) for i, r in enumerate(runs))
    for row, other in zip(toys.timeless(near), toys.timeless(far), strict=True):
        assert row.keys() == other.keys()
        assert list(other.values()) == pytest.approx(list(row.values()), abs=1e-4)
    assert far[1]["train/teacher_kl"] > 0.05
    theirs, ours = (toys.weights(r.parts.policy) for r in runs)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
    scored = [body for path, body in served.asked if path == "/v1/completions"]
    assert len(scored) == KEYS["n_steps"] * KEYS["rollout_batch_size"]


def test_only_trained_tokens_are_scored_each_given_all_before_it(toys, teacher, served):
    far = VllmTeacher(url=served.url).build()
    far.meet(toys.policy(), temperature=1.0)
    how = {"token_budget": 64, "temperature": 1.0}
    found = detached_logprobs(far, ROWS, **how)
    assert [len(f) for f in found] == [3, 0, 2]
    for got, want in zip(found, detached_logprobs(teacher, ROWS, **how), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_it_may_be_the_reference_of_grpo(grpo, toys, served, tmp_path):
    far = VllmTeacher(url=served.url).build()
    rows = toys.carry_out(grpo(reference=Reference(0.1, "k3", far)), tmp_path)
    assert rows[1]["train/kl"] > 0.01


def test_it_may_be_the_reference_of_dpo(toys, teacher, served, tmp_path):
    pairs = [Example(f"id{i}", f"q{i}", f"a{i}#", {"rejected": f"b{i}#"}) for i in range(8)]

    def rows(reference, folder):
        given = {"data": pairs, "prompt": toys.Template(), "optimizer": toys.adamw()}
        made = toys.assemble(
            Dpo(train_batch_size=4), policy=toys.policy(), **given, reference=reference
        )
        return toys.timeless(toys.carry_out(made, tmp_path / folder))

    far = VllmTeacher(url=served.url).build()
    for near, other in zip(rows(teacher, "near"), rows(far, "far"), strict=True):
        assert list(other.values()) == pytest.approx(list(near.values()), abs=1e-4)


# ---------------------------------------------------------------- refused before the first step


def refused(distill, toys, folder, table, **parts):
    with pytest.raises(AlignkitError) as caught:
        toys.carry_out(distill(table.build(), **parts), folder)
    assert not [row for row in toys.rows(folder) if row["step"] > 0]
    return str(caught.value)


def test_another_vocabulary_is_refused(distill, toys, teacher, served, tmp_path):
    def swapped(path, body):
        if path == "/detokenize":
            ids = [{70: 71, 71: 70}.get(i, i) for i in body["tokens"]]
            return 200, {"prompt": teacher.tokenizer.decode(ids)}
        return None

    served.answer = swapped
    said = refused(distill, toys, tmp_path, VllmTeacher(url=served.url))
    assert f"the teacher behind {served.url}" in said
    assert "different vocabularies" in said


def test_another_temperature_is_refused(distill, toys, served, tmp_path):
    warm = toys.backend(temperature=0.7)
    said = refused(distill, toys, tmp_path, VllmTeacher(url=served.url), backend=warm)
    assert "at temperature 1, and responses are sampled at 0.7" in said


def test_another_model_is_refused(distill, toys, served, tmp_path):
    said = refused(distill, toys, tmp_path, VllmTeacher(url=served.url, model="huge"))
    assert "does not serve 'huge' but big, small" in said


def test_a_response_that_is_too_long_for_it_is_refused(distill, toys, serving, teacher, tmp_path):
    with serving(teacher, max_len=6) as server:
        said = refused(distill, toys, tmp_path, VllmTeacher(url=server.url))
    assert "scores at most 5" in said
    assert "--max-model-len=" in said


def test_a_plan_refuses_it_as_the_policy_without_a_server_and_at_another_temperature(tmp_path):
    base = Path(__file__).resolve().parents[3] / "recipes" / "distill.toml"
    url = 'use = "vllm"\nurl = "http://127.0.0.1:9"\n'
    (tmp_path / "policy.toml").write_text(f'extends = "{base}"\n[policy]\n{url}')
    (tmp_path / "warm.toml").write_text(
        f'extends = "{base}"\n[teacher]\n{url}[rollout]\ntemperature = 0.5\n'
    )
    (tmp_path / "engine.toml").write_text(f'extends = "{base}"\n[teacher]\nuse = "vllm"\n')
    (tmp_path / "good.toml").write_text(f'extends = "{base}"\n[teacher]\n{url}')
    for name, status, said in [
        ("policy", 2, "only gives log-probs"),
        ("warm", 2, "at temperature 1, not 0.5"),
        ("engine", 2, "start `python -m alignkit_vllm.serve MODEL`"),
        ("good", 0, "the model behind http://127.0.0.1:9"),
    ]:
        done = run_cli("run", tmp_path / f"{name}.toml", "--dry-run")
        assert done.status == status, done.stderr
        assert said in " ".join((done.stdout + done.stderr).split())


def test_memory_is_that_of_the_policy_and_of_a_teacher_in_this_process(tmp_path):
    base = Path(__file__).resolve().parents[3] / "recipes" / "distill.toml"
    near, far = tmp_path / "near.toml", tmp_path / "far.toml"
    near.write_text(f'extends = "{base}"\n[teacher]\nuse = "hf"\npath = "Qwen/Qwen2.5-7B"\n')
    far.write_text(f'extends = "{base}"\n[teacher]\nuse = "vllm"\nurl = "http://127.0.0.1:9"\n')
    near, far = (run_cli("explain", file).stdout for file in (near, far))
    for told in (near, far):
        assert "1.8 MB weights" in told
    assert "28.0 GB teacher" in near
    assert "teacher" not in far.partition("memory, at most")[2].partition("time:")[0]


def test_an_algorithm_of_anybodys_refuses_it_as_the_policy(distill, toys, teacher):
    with pytest.raises(AlignkitError, match=r"\[policy\] is a server that only gives log-probs"):
        distill(teacher, policy=VllmTeacher(url="http://127.0.0.1:9").build())


# ---------------------------------------------------------------- servers that fail


def scores(served, **keys):
    far = VllmTeacher(url=served.url, **keys).build()
    far.meet(served.policy, temperature=1.0)
    return far.score([((3, 4, 5), 2), ((6, 7), 1)])


def test_a_server_that_is_away_for_a_while_is_asked_again(served, capsys):
    left = [3]

    def away(path, body):
        if path == "/v1/completions" and left[0]:
            left[0] -= 1
            return 503, {"error": "busy"}
        return None

    served.answer = away
    found = scores(served)
    served.answer = lambda path, body: None
    assert found == scores(served)
    assert capsys.readouterr().err.count("does not answer") == 1


def test_a_server_that_stays_away_ends_the_run_after_its_patience(served):
    served.answer = lambda path, body: (503, {}) if path == "/v1/completions" else None
    began = time.monotonic()
    with pytest.raises(AlignkitError, match=r"has not answered for 0.3 s: .* 503"):
        scores(served, patience=0.3)
    assert time.monotonic() - began < 10


BAD = {
    "no prompt_logprobs": {"choices": [{}]},
    "none at all": {"choices": [{"prompt_logprobs": None}]},
    "too few": {"choices": [{"prompt_logprobs": [None]}]},
    "of other ids": {"choices": [{"prompt_logprobs": [None] + [{"1": {"logprob": 0.0}}] * 2}]},
    "no number": {"choices": [{"prompt_logprobs": [None] + [{"5": {"logprob": None}}] * 2}]},
    "not finite": {
        "choices": [{"prompt_logprobs": [None] + [{"5": {"logprob": float("nan")}}] * 2}]
    },
    "nothing": None,
}


@pytest.mark.parametrize("kind", BAD)
def test_an_answer_without_a_log_prob_for_each_id_is_refused(served, kind):
    served.answer = lambda path, body: (200, BAD[kind]) if path == "/v1/completions" else None
    far = VllmTeacher(url=served.url).build()
    far.meet(served.policy, temperature=1.0)
    with pytest.raises(AlignkitError, match="does not give a log-prob for each id"):
        far.score([((3, 4, 5), 1)])


def test_a_wrong_key_is_said_at_once(served):
    served.answer = lambda path, body: (401, {})
    with pytest.raises(AlignkitError, match="refuses the key"):
        scores(served)
