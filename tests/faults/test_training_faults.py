"""Batches, models and machines that are not as they should be; each in a real run."""

import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace

import pytest
import torch

from alignkit.errors import AlignkitError, RunFailed
from alignkit.protocols import Example, LossOutput


@pytest.fixture
def same_weights(runs):
    """Whether a run ended with the weights it began with."""

    def compare(out="run"):
        from safetensors.numpy import load_file

        new = load_file(runs.folder / out / "final/model.safetensors")
        old = load_file(runs.model / "model.safetensors")
        return all((new[name] == old[name]).all() for name in new)

    return compare


@pytest.mark.parametrize("verdict", ["0.0", "1.0"])
def test_all_wrong_or_all_right_batches_teach_nothing_and_it_is_said(
    runs, grpo, same_weights, capsys, verdict
):
    (runs.folder / "judge.py").write_text(f"def reward(response, example):\n    return {verdict}\n")
    runs.start(grpo, "optimizer.weight_decay=0.0")
    rows = [r for r in runs.rows() if "train/reward" in r]
    assert [r["train/groups_without_signal"] for r in rows] == [1.0] * 4
    assert [r["train/grad_norm"] for r in rows] == [0.0] * 4
    assert [r["train/skipped_steps"] for r in rows] == [0.0] * 4
    assert same_weights()
    said = capsys.readouterr().out
    warning = (
        "watch: train/groups_without_signal is 1 at step 3 and has been above 0.9 since step 1"
    )
    assert said.count("watch: train/groups_without_signal") == 1
    assert warning in said
    assert "  Usual cause: the questions are too hard or too easy for the policy" in said
    assert "drop_groups_without_signal = true with max_refills" in said


def test_a_rule_set_to_stop_ends_the_run_as_failed(runs, grpo):
    (runs.folder / "judge.py").write_text("def reward(response, example):\n    return 0.0\n")
    with pytest.raises(RunFailed, match=r"stopped by \[watch\] at step 2: .*\(no_signal\)"):
        runs.start(grpo, 'watch.no_signal="stop"', "watch.steps=2")
    manifest = json.loads((runs.folder / "run/manifest.json").read_text())
    assert manifest["status"] == "failed"
    assert len(runs.rows()) == 2


def test_a_loss_that_is_never_finite_stops_the_run_with_its_batch_saved(
    runs, grpo, monkeypatch, capsys
):
    import alignkit_losses

    broken = lambda x: LossOutput(per_token=x.logprobs * float("nan"))  # noqa: E731
    monkeypatch.setattr(alignkit_losses.GrpoClip, "build", lambda self: broken)
    said = r"3 optimizer steps in a row had no finite loss and gradient \(loss nan, .*\n.*\n"
    said += r".*optimizer.lr.*\[watch\] nonfinite = 3"
    with pytest.raises(RunFailed, match=said):
        runs.start(grpo, "watch.nonfinite=3")
    assert [(r["train/skipped_steps"], r["train/loss"]) for r in runs.rows()] == [(1.0, None)] * 2
    saved = (runs.folder / "run/nonfinite/batch.jsonl").read_text().splitlines()
    assert len(saved) == 8
    assert {"prompt", "response", "advantage", "rollout_logprobs"} <= json.loads(saved[0]).keys()
    told = capsys.readouterr().out
    assert told.count("an optimizer step was skipped, weights are as before it: loss nan") == 1


@pytest.mark.parametrize("how", ["detach", "item", "no_grad"])
def test_a_loss_without_a_gradient_is_refused_at_the_first_update(runs, grpo, monkeypatch, how):
    import alignkit_losses

    def loss(x):
        if how == "no_grad":
            with torch.no_grad():
                return LossOutput(per_token=-x.logprobs * x.advantages)
        if how == "item":
            return LossOutput(per_token=torch.full_like(x.logprobs, x.logprobs.mean().item()))
        return LossOutput(per_token=-x.logprobs.detach() * x.advantages)

    monkeypatch.setattr(alignkit_losses.GrpoClip, "build", lambda self: loss)
    with pytest.raises(RunFailed, match="the loss returned numbers without a gradient"):
        runs.start(grpo)
    assert all(r["train/groups_without_signal"] == 1 for r in runs.rows())  # nothing to learn there


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_logits_that_are_no_numbers_end_the_run_with_the_step_named(runs, grpo, monkeypatch, value):
    """Weights that go wrong in the third step, whichever way they are sampled from."""
    from alignkit_hf.sampling.backend import HfBackend

    def spoiled(self, prompts, sampling, before=HfBackend.stream):
        if sampling.step == 3:
            with torch.no_grad():
                self._paths.policy.model.model.norm.weight.fill_(float(value))
        return before(self, prompts, sampling)

    monkeypatch.setattr(HfBackend, "stream", spoiled)
    said = r"the logits of .* are not finite at step 3 \(token 1 of a response\): its weights have"
    with pytest.raises(RunFailed, match=said) as error:
        runs.start(grpo)
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_model_whose_weights_are_no_numbers_is_refused_when_it_is_loaded(runs, sft, value):
    from safetensors.torch import load_file, save_file

    spoiled = runs.folder / "spoiled"
    shutil.copytree(runs.model, spoiled)
    tensors = load_file(spoiled / "model.safetensors")
    name = sorted(tensors)[3]
    tensors[name].view(-1)[-1] = float(value)
    save_file(tensors, spoiled / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AlignkitError, match=f"weights {name} hold numbers that are not finite"):
        runs.start(sft, f'policy.path="{spoiled}"')


def test_a_checkpoint_of_weights_that_are_no_numbers_is_named(runs):
    from alignkit.engine.training.checkpoint import load_weights, weights
    from alignkit_hf import HfPolicy

    policy = HfPolicy(path=str(runs.model)).build()
    saved = {name: tensor.clone() for name, tensor in weights(policy).items()}
    name = sorted(saved)[2]
    saved[name].view(-1)[0] = float("nan")
    with pytest.raises(AlignkitError, match=f"checkpoint's weights {name} hold numbers that are"):
        load_weights(policy, saved)


def test_empty_responses_are_counted_and_stop_a_run_that_has_nothing_else(
    runs, grpo, monkeypatch, capsys
):
    from alignkit_hf.sampling.backend import HfBackend

    def emptied(self, prompts, sampling, before=HfBackend.stream):
        for index, group in before(self, prompts, sampling):
            yield index, [replace(c, text="", token_ids=(), logprobs=()) for c in group]

    monkeypatch.setattr(HfBackend, "stream", emptied)
    with pytest.raises(RunFailed, match=r"stopped by \[watch\] at step 3: .*\(no_tokens\)"):
        runs.start(grpo)
    rows = [r for r in runs.rows() if "train/reward" in r]
    assert [(r["train/empty"], r["train/response_length"]) for r in rows] == [(1.0, 0.0)] * 3
    assert [r["train/response_tokens"] for r in rows] == [0.0] * 3
    said = capsys.readouterr().out
    assert "NO ROW HOLDS A TRAINED TOKEN" in said
    assert "Usual cause: every response is empty" in said


def test_a_tokenizer_without_a_pad_token_computes_what_one_with_it_does(runs, grpo):
    runs.start(grpo, out="with")
    bare = runs.folder / "bare"
    shutil.copytree(runs.model, bare)
    for name in ("tokenizer_config.json", "config.json", "generation_config.json"):
        facts = json.loads((bare / name).read_text())
        assert facts.pop("pad_token", None) or facts.pop("pad_token_id", None) is not None
        (bare / name).write_text(json.dumps(facts))
    runs.start(grpo, f'policy.path="{bare}"', out="without")
    # Later steps may differ: where there is a pad token, its embedding is never trained.
    first = [
        {k: v for k, v in runs.rows(out)[0].items() if k.startswith("train/")}
        for out in ("with", "without")
    ]
    assert first[0].pop("train/grad_norm") == pytest.approx(first[1].pop("train/grad_norm"), 0.01)
    timed = {k for k in first[0] if "per_second" in k or "flops" in k or "memory" in k}
    assert {k: v for k, v in first[0].items() if k not in timed} == {
        k: v for k, v in first[1].items() if k not in timed
    }
    assert [r["train/skipped_steps"] for r in runs.rows("without")] == [0.0] * 4


def test_prompts_longer_than_the_model_takes_are_passed_over_and_counted(runs, grpo):
    long = "why " * 400  # 1,600 bytes; the model takes 1,024 tokens, a byte each
    rows = [{"question": long if i % 2 else f"{i}?", "answer": "1"} for i in range(12)]
    (runs.folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    runs.start(grpo)
    trained = [r for r in runs.rows() if "train/reward" in r]
    # 2 prompts a step: 8 short ones in 4 steps take more than one pass over the 6 there are
    assert trained[-1]["train/prompts_skipped"] >= 6
    assert all(r["train/responses"] == 8 for r in trained)
    (runs.folder / "rows.jsonl").write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(RunFailed, match=r"every prompt of .data. fills the 1024 tokens"):
        runs.start(grpo, out="hopeless")


def test_an_evaluation_of_which_every_prompt_is_too_long_is_an_error(runs, grpo):
    long = [{"question": "why " * 400, "answer": "1"}] * 2
    (runs.folder / "long.jsonl").write_text("".join(json.dumps(r) + "\n" for r in long))
    table = '{every=1, data={use="jsonl", path="long.jsonl"}}'
    with pytest.raises(RunFailed, match=r"every prompt of the evaluation fills the 1024 tokens"):
        runs.start(grpo, f"eval={table}")
    named = '{every=1, sets={hard={data={use="jsonl", path="long.jsonl"}}}}'
    with pytest.raises(RunFailed, match=r"every prompt of the evaluation set 'hard' fills"):
        runs.start(grpo, f"eval={named}", out="named")
    (runs.folder / "long.jsonl").write_text(
        json.dumps(long[0]) + "\n" + json.dumps({"question": "why?", "answer": "1"}) + "\n"
    )
    run = runs.start(grpo, f"eval={table}", out="one")
    assert {r["eval/prompts_too_long"] for r in runs.rows("one")} == {1.0}, run.dir


def test_clocks_that_jump_change_no_duration(runs, grpo, monkeypatch):
    """The wall clock goes back an hour at every reading."""
    now = [time.time()]

    def back():
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", back)
    monkeypatch.setattr(time, "time_ns", lambda: int(back() * 1e9))
    runs.start(grpo, 'checkpoint.every="0.01s"')
    times = [r["time"] for r in runs.rows()]
    assert times == sorted(times)
    assert 0 < times[-1] < 3600
    assert all(v >= 0 for r in runs.rows() for k, v in r.items() if k.startswith("time/"))
    assert 0 < json.loads((runs.folder / "run/manifest.json").read_text())["seconds"] < 3600
    assert list((runs.folder / "run/checkpoints").glob("step_*"))


def test_grading_workers_that_die_amid_a_batch_cost_no_verdict():
    from alignkit_rewards import QuestionOnly
    from alignkit_rewards.pool import shared_pool

    reward = QuestionOnly(timeout=5.0).build()
    asked = [rf"so \boxed{{x^{i} + {i}x}}" for i in range(60)]
    rows = [Example(str(i), "?", f"{i}x + x^{{{i}}}") for i in range(60)]
    reward(asked[:1], rows[:1])  # workers are up
    over = threading.Event()
    killed = set()

    def murder():
        while not over.wait(0.01) and len(killed) < 3:
            for pid in shared_pool().processes()[:1]:
                if pid not in killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)

    thread = threading.Thread(target=murder)
    thread.start()
    try:
        found = reward(asked, rows)
    finally:
        over.set()
        thread.join()
    assert killed
    assert len(found) == 60
    assert [r.total for r in found] == [1.0] * 60  # a lost worker's pairs are judged again


def test_wandb_out_of_reach_is_said_once_and_logged_offline(runs, grpo, monkeypatch, capsys):
    pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    command = ["alignkit", "run", "-s", "judge.api_key=planted-secret"]
    monkeypatch.setattr(sys, "argv", command)  # wandb would keep it, if it were let
    run = runs.start(grpo, 'trackers=[{use="wandb"}]')
    said = capsys.readouterr().out
    assert said.count("wandb cannot be used online") == 1
    assert "training goes on, logged offline" in said
    assert [r["step"] for r in runs.rows()] == [1, 2, 3, 4]
    assert len(list(run.dir.glob("wandb/offline-run-*/*.wandb"))) == 1
    for path in (p for p in run.dir.rglob("*") if p.is_file()):
        assert b"a" * 40 not in path.read_bytes(), path
        assert b"planted-secret" not in path.read_bytes(), path


def test_a_judge_that_raises_is_named_with_its_line(runs, grpo):
    (runs.folder / "judge.py").write_text("def reward(response, example):\n    return 1 / 0\n")
    with pytest.raises(
        RunFailed, match=r"judge.py:reward raised ZeroDivisionError.*\(judge\.py, line 2\)"
    ):
        runs.start(grpo)


def test_nothing_is_left_of_a_run_that_could_not_be_built(runs, grpo):
    (runs.folder / "judge.py").write_text("def reward(response, example):\n    return 1\nboom\n")
    with pytest.raises(AlignkitError, match=r"judge\.py cannot be imported: NameError"):
        runs.start(grpo)
    assert not (runs.folder / "run").exists()
