"""Recipes and runs from Python; what the commands do is compared with what these return."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import alignkit
from alignkit.errors import AlignkitError, RecipeError
from alignkit.testing import run_cli

SMALL = {
    "n_steps": 2,
    "rollout_batch_size": 8,
    "train_batch_size": 8,
    "save_rollouts_every": 1,
    "rollout.max_tokens": 4,
    "eval": {"n": 2, "every": 1},
}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    plan = alignkit.load("alignkit:recipes/grpo.toml", set=SMALL)
    return alignkit.run(plan, out=folder / "run")


def test_a_plan_is_what_a_dry_run_prints():
    overlay = "alignkit:recipes/grpo_offpolicy.toml"
    given = ["-s", "n_steps=3", "-s", 'loss.use="reinforce"']
    plan = alignkit.load(
        "alignkit:recipes/grpo.toml",
        with_=[overlay],
        set={"n_steps": 3, "loss": {"use": "reinforce"}},
    )
    printed = run_cli("run", "alignkit:recipes/grpo.toml", "--with", overlay, *given, "--dry-run")
    where = re.compile(r"\s+# -s .*")  # an override shows how it was typed
    assert where.sub("", str(plan)).strip() == where.sub("", printed.stdout).strip()
    assert plan.recipe["n_steps"] == 3
    assert plan.recipe["loss"]["use"] == "reinforce"
    assert plan.missing == []


def test_texts_and_mappings_set_the_same():
    texts = alignkit.load("alignkit:recipes/grpo.toml", set=["n_steps=3", "rollout.top_p=0.5"])
    table = alignkit.load(
        "alignkit:recipes/grpo.toml", set={"n_steps": 3, "rollout": {"top_p": 0.5}}
    )
    assert texts.recipe == table.recipe


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"n_stepz": 3}, "n_stepz"),
        ({"n_steps": "many"}, "n_steps"),
        ({"loss.use": "grpo_clop"}, "grpo_clip"),
        ({"n_steps": {1}}, "TOML cannot hold"),
        ("n_steps=3", "not 'n_steps=3'"),
        ([("n_steps", 3)], r"not \('n_steps', 3\)"),
        (["seed=1", 3], "not 3"),
    ],
    ids=str,
)
def test_what_is_wrong_is_an_error_of_alignkits(values, wanted):
    with pytest.raises(AlignkitError, match=wanted):
        alignkit.load("alignkit:recipes/grpo.toml", set=values)


class Scalar:
    """A number of numpy or torch, which is none of Python's."""

    def __init__(self, value):
        self.value = value

    def tolist(self):
        return self.value


def test_numbers_of_numpy_and_torch_can_be_set():
    values = {"n_steps": Scalar(3), "seed": Scalar(7)}
    plan = alignkit.load("alignkit:recipes/grpo.toml", set=values)
    assert (plan.recipe["n_steps"], plan.recipe["seed"]) == (3, 7)


def test_a_notebook_shows_a_plan_in_a_line():
    plan = alignkit.load("alignkit:recipes/grpo.toml")
    assert re.fullmatch(r"Plan\(grpo, \S*grpo.toml\)", repr(plan))


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("set", lambda: alignkit.load("alignkit:recipes/grpo.toml", set=None)),
        ("with_", lambda: alignkit.load("alignkit:recipes/grpo.toml", with_=None)),
        ("plugins", lambda: alignkit.load("alignkit:recipes/grpo.toml", plugins=3)),
        ("open_run", lambda: alignkit.open_run(None)),
        ("open_run", lambda: alignkit.open_run(3)),
        ("out", lambda: alignkit.run("alignkit:recipes/grpo.toml", out=3)),
    ],
)
def test_an_argument_of_the_wrong_type_is_named(argument, call):
    with pytest.raises(AlignkitError, match=f"^{argument} takes "):
        call()


@pytest.mark.parametrize("given", ["x.toml", Path("x.toml"), [3], [None]], ids=str)
@pytest.mark.parametrize("argument", ["with_", "plugins"])
def test_what_is_no_list_of_files_is_refused(argument, given):
    with pytest.raises(AlignkitError, match=f"^{argument} takes "):
        alignkit.load("alignkit:recipes/grpo.toml", **{argument: given})


def test_plugins_are_named_by_paths_too(tmp_path):
    with pytest.raises(AlignkitError, match=r"gone\.py cannot be read: No such file"):
        alignkit.load("alignkit:recipes/grpo.toml", plugins=[tmp_path / "gone.py"])


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", "file/below"], ids=["long", "null", "file"])
def test_a_name_that_no_folder_can_have_is_an_error_of_alignkits(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    plan = alignkit.load("alignkit:recipes/grpo.toml", set=SMALL)
    for use in (alignkit.open_run, alignkit.load, lambda out: alignkit.run(plan, out=out)):
        with pytest.raises(AlignkitError):
            use(name)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_recipe_that_is_not_there_is_an_error():
    with pytest.raises(RecipeError, match="cannot read"):
        alignkit.load("nowhere.toml")


def test_plugins_are_left_out_and_added(tmp_path):
    with pytest.raises(AlignkitError, match="losses is disabled"):
        alignkit.load("alignkit:recipes/grpo.toml", plugins=["no:losses"])
    file = tmp_path / "mine.py"
    file.write_text("x = 1\n")
    with pytest.raises(AlignkitError, match="offers nothing"):
        alignkit.load("alignkit:recipes/grpo.toml", plugins=[str(file)])


def test_a_finished_run_tells_what_it_wrote(result):
    assert result.status == "done"
    lines = (result.dir / "metrics.jsonl").read_text().splitlines()
    written = [json.loads(line) for line in lines]
    assert result.metrics() == written
    assert result.final == written[-1]
    assert [row["step"] for row in result.evaluations()] == [0, 1, 2]
    assert all(set(row) - {"step"} for row in result.evaluations())
    assert result.recipe["n_steps"] == 2
    assert len(result.rollouts(1)) == 8
    assert result.rollouts() == result.rollouts(2)
    assert len(result.rollouts(0, "eval")) == 2


def test_a_run_opened_again_is_the_same(result):
    again = alignkit.open_run(result.dir)
    assert again.metrics() == result.metrics()
    assert "done" in repr(again)
    shown = again._repr_html_()
    assert "eval/answer_reward" in shown
    assert "<script" not in shown


def test_what_is_not_there_is_said(result, tmp_path):
    with pytest.raises(AlignkitError, match="steps: 1, 2"):
        result.rollouts(7)
    with pytest.raises(AlignkitError, match="holds no eval/hard"):
        result.rollouts(0, "eval/hard")
    with pytest.raises(AlignkitError, match="is no run directory"):
        alignkit.open_run(tmp_path)


def test_the_policy_is_the_one_in_final(result):
    import torch
    from safetensors.torch import load_file

    model = result.policy().model
    saved = load_file(result.dir / "final" / "model.safetensors")
    named = dict(model.named_parameters())
    shared = sorted(saved.keys() & named.keys())
    assert shared
    assert all(torch.equal(saved[name], named[name]) for name in shared)


def test_a_run_without_a_model_says_so(result, tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(AlignkitError, match="has no final/"):
        alignkit.open_run(tmp_path).policy()


@pytest.mark.parametrize("damaged", ["", "policy = 3", "policy = [1]", "use = "], ids=str)
def test_a_run_whose_recipe_is_damaged_has_no_policy(tmp_path, damaged):
    (tmp_path / "final").mkdir()
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "recipe.toml").write_text(damaged)
    with pytest.raises(AlignkitError, match="has no final/"):
        alignkit.open_run(tmp_path).policy()


def test_metrics_are_plotted(result):
    pytest.importorskip("matplotlib")
    figure = result.plot("train/loss", "eval/answer_reward")
    assert [axis.get_title() for axis in figure.axes] == ["train/loss", "eval/answer_reward"]
    assert [len(axis.lines[0].get_xdata()) for axis in figure.axes] == [2, 3]
    assert "data:image/png" in result._repr_html_()
    with pytest.raises(AlignkitError, match="was not logged"):
        result.plot("nothing")


def test_metrics_come_as_a_frame(result):
    pytest.importorskip("pandas")
    frame = result.frame()
    assert list(frame.index) == [0, 1, 2]
    assert frame["eval/answer_reward"].iloc[-1] == result.final["eval/answer_reward"]


def test_a_run_without_rows_has_an_empty_frame_and_no_chart(tmp_path):
    pytest.importorskip("pandas")
    (tmp_path / "metrics.jsonl").write_text("")
    run = alignkit.open_run(tmp_path)
    assert run.frame().shape == (0, 0)
    assert run.frame().index.name == "step"
    assert "<img" not in run._repr_html_()


def test_a_name_with_dollars_is_drawn_as_it_is(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/$x_$": 2.0}\n')
    run = alignkit.open_run(tmp_path)
    assert run.plot().axes[0].get_title() == "train/$x_$"
    assert "<img" in run._repr_html_()


@pytest.mark.parametrize("plugins", ["5", "[3]", '"a.py"'])
def test_a_list_of_plugins_that_is_none_is_an_error_of_alignkits(tmp_path, plugins):
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "final").mkdir()
    (tmp_path / "recipe.toml").write_text(f'use = "grpo"\nplugins = {plugins}\n[policy]\n')
    with pytest.raises(AlignkitError, match=r"plugins in recipe.toml is no list"):
        alignkit.open_run(tmp_path).policy()


def test_hostile_text_in_a_run_is_escaped(tmp_path):
    row = {"step": 0, "<script>alert(1)</script>/x": 1.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert "<script" not in alignkit.open_run(tmp_path)._repr_html_()


def test_importing_alignkit_stays_light():
    script = "import sys, alignkit; print(sorted(m for m in sys.modules if 'alignkit' in m))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "alignkit.api" not in done.stdout
    assert "torch" not in done.stdout
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        alignkit.lode  # noqa: B018
