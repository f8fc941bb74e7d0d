"""Run directories that are moved or deleted while the run is at work: seen, saved, said."""

import json
import shutil

import pytest

from alignkit.errors import RunFailed
from alignkit.execution import Run
from alignkit.lifecycle.signals import Interrupted


def moved(folder):
    folder.rename(folder.with_name("elsewhere"))


def moved_and_replaced(folder):
    moved(folder)
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 1, "train/loss": 0.5}\n')


def deleted(folder):
    shutil.rmtree(folder)


def without_metrics(folder):
    (folder / "metrics.jsonl").unlink()


SLOW = [pytest.param(h, marks=pytest.mark.slow) for h in (moved_and_replaced, without_metrics)]
HARMS = [moved, deleted, *SLOW]
WHERE = {moved: "elsewhere", moved_and_replaced: "elsewhere"}


def at_step(monkeypatch, step, harm):
    def log(self, at, metrics, before=Run.log):
        if at == step:
            monkeypatch.setattr(Run, "log", before)
            harm(self.dir)
        before(self, at, metrics)

    monkeypatch.setattr(Run, "log", log)


@pytest.fixture
def calm(runs, sft):
    runs.start(sft, "checkpoint.every=0", out="calm")
    return runs.weights("calm"), [r["step"] for r in runs.rows("calm")]


@pytest.mark.parametrize("harm", HARMS)
def test_a_directory_that_is_lost_amid_a_run_is_saved_and_gone_on_with(
    runs, sft, calm, monkeypatch, harm
):
    at_step(monkeypatch, 3, harm)
    what = "moved to elsewhere" if harm in WHERE else "deleted"
    with pytest.raises(RunFailed, match=f"run.* was {what} while the run was at work") as error:
        runs.start(sft, "checkpoint.every=0")
    out = WHERE.get(harm, "run")
    assert f"go on with: alignkit resume {out}" in str(error.value)
    assert "Traceback" not in str(error.value)
    assert json.loads((runs.folder / out / "manifest.json").read_text())["status"] == "failed"
    [saved] = (runs.folder / out / "checkpoints").iterdir()
    assert saved.name.startswith("step_000002")
    if harm is moved:
        assert not (runs.folder / "run").exists()
    runs.resume(out)
    assert (runs.weights(out), [r["step"] for r in runs.rows(out)]) == calm


@pytest.mark.parametrize("harm", [moved, deleted])
def test_a_directory_that_is_lost_before_a_signal(runs, sft, calm, monkeypatch, harm, capsys):
    def log(self, at, metrics, before=Run.log):
        before(self, at, metrics)
        if at == 2:
            harm(self.dir)
            self.signals.interrupt("a test")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", log)
        with pytest.raises(Interrupted):
            runs.start(sft, "checkpoint.every=0")
    out = WHERE.get(harm, "run")
    assert "while the run was at work" in capsys.readouterr().out
    runs.resume(out)
    assert (runs.weights(out), [r["step"] for r in runs.rows(out)]) == calm


@pytest.mark.parametrize("harm", [moved, deleted])
def test_a_directory_that_is_lost_when_the_model_is_written(runs, sft, calm, monkeypatch, harm):
    from alignkit_hf.policy.causal import CausalPolicy

    def save(self, folder, before=CausalPolicy.save):
        monkeypatch.setattr(CausalPolicy, "save", before)
        before(self, folder)
        harm(runs.folder / "run")

    monkeypatch.setattr(CausalPolicy, "save", save)
    with pytest.raises(RunFailed, match="while the run was at work") as error:
        runs.start(sft, "checkpoint.every=0")
    assert "Traceback" not in str(error.value)
    out = WHERE.get(harm, "run")
    runs.resume(out)
    assert (runs.weights(out), [r["step"] for r in runs.rows(out)]) == calm
