"""What a run that time or a budget ended leaves behind: its model, and all that resuming needs."""

import json

import pytest
from safetensors.torch import load_file

from alignkit.engine.training.checkpoint import StoredState
from alignkit.errors import AlignkitError
from alignkit.execution import Run
from alignkit.lifecycle.signals import Interrupted
from alignkit.run_data.models import models
from alignkit.run_data.runs import read


@pytest.fixture
def stop(runs, monkeypatch):
    """Run a recipe and end it when it logs a step; return its folder."""

    def ended(text, step, status=75, out="run", *more):
        log = Run.log

        def interrupted(self, logged, metrics):
            log(self, logged, metrics)
            if logged == step:
                raise Interrupted("a limit", status)

        with monkeypatch.context() as patch:
            patch.setattr(Run, "log", interrupted)
            with pytest.raises(Interrupted):
                runs.start(text, *more, out=out)
        return runs.folder / out

    return ended


def saved(folder):
    newest = max((folder / "checkpoints").glob("step_*"))
    return StoredState(newest).value()["weights"]


def same(folder):
    """Whether the model in final/ has the weights of the newest checkpoint."""
    kept, left = saved(folder), load_file(folder / "final/model.safetensors")
    return bool(left) and all(left[name].equal(kept[name]) for name in left)


@pytest.mark.parametrize("use", ["sft", "grpo"])
def test_a_run_that_is_stopped_leaves_its_model_and_goes_on_exactly(
    runs, stop, request, capsys, use
):
    text = request.getfixturevalue(use)
    runs.start(text, out="calm")
    folder = stop(text, 2)
    assert json.loads((folder / "manifest.json").read_text())["status"] == "stopped"
    assert "model as it is now: run/final" in capsys.readouterr().out
    assert same(folder)
    assert runs.weights("run") != runs.weights("calm")
    (model,) = models(read(folder))
    assert (model.which, model.step, model.part) == ("last", 1, True)  # ended before step 2 was
    runs.resume()
    assert runs.weights("run") == runs.weights("calm")
    (model,) = models(read(folder))
    assert str(model) == "last, step 4"
    assert not list(folder.glob(".final*"))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_helper_of_a_reward_that_changed_is_noticed_before_a_resume(runs, grpo, stop, workers):
    text = "import lengths\ndef reward(response, example):\n    return lengths.odd(response)\n"
    (runs.folder / "judge.py").write_text(text)
    helper = runs.folder / "lengths.py"
    helper.write_text("def odd(text):\n    return float(len(text) % 2)\n")
    folder = stop(grpo, 2, 75, "run", f"reward.workers={workers}")
    code = json.loads((folder / "manifest.json").read_text())["foreign_code"]
    assert any("[reward] lengths.py (sha256 " in item for item in code)
    helper.write_text("def odd(text):\n    return float(len(text) % 3)\n")
    with pytest.raises(AlignkitError, match=r"\n  file reward\.code\n"):
        runs.resume()
    helper.write_text("def odd(text):\n    return float(len(text) % 2)\n")
    runs.resume()
    assert json.loads((folder / "manifest.json").read_text())["status"] == "done"


@pytest.mark.parametrize("status", [130, 143])
def test_a_run_that_a_person_ends_leaves_none(sft, stop, status):
    folder = stop(sft, 2, status)
    assert json.loads((folder / "manifest.json").read_text())["status"] == "interrupted"
    assert not (folder / "final").exists()
    assert models(read(folder)) == []


def test_the_best_model_is_told_beside_the_last(runs, sft):
    runs.start(sft, "checkpoint.every=0", "checkpoint.keep_best=1", "checkpoint.metric=train/loss")
    best = next((runs.folder / "run/checkpoints").glob("step_*/model")).parent.name
    assert [str(m) for m in models(read(runs.folder / "run"))] == [
        "last, step 4",
        f"best, step {int(best[5:])}",
    ]


def test_without_room_for_the_model_the_run_is_stopped_all_the_same(
    runs, sft, stop, disk, capsys, monkeypatch
):
    from alignkit_hf.policy.causal import CausalPolicy

    place = disk("small", 2**24)
    save = CausalPolicy.save

    def fill(self, folder):
        used = sum(p.stat().st_size for p in place.rglob("*") if p.is_file())
        disk("small", used + 2**17)
        save(self, folder)

    with monkeypatch.context() as patch:
        patch.setattr(CausalPolicy, "save", fill)
        folder = stop(sft, 2, 75, "small/run")
    assert "warning: no model is left: cannot write to small/run: No space left" in (
        capsys.readouterr().out
    )
    assert json.loads((folder / "manifest.json").read_text())["status"] == "stopped"
    assert not list(folder.glob("*final*"))
    disk("small", 2**25)
    runs.resume("small/run")
    assert (folder / "final/model.safetensors").is_file()
