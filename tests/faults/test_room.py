"""A disk too small for what a run is sure to leave: told before anything is there."""

import re
import shutil
from collections import namedtuple

import pytest
from click.testing import CliRunner

import alignkit
from alignkit import recipe
from alignkit.cli import main
from alignkit.errors import AlignkitError

Usage = namedtuple("Usage", "total used free")
EVERY_STEP = ("checkpoint.every=1", "checkpoint.keep_last=2")


def at_least(runs, text, *overrides):
    (runs.folder / "r.toml").write_text(text.format(model=runs.model))
    node = recipe.load(runs.folder / "r.toml", runs.registry, (), overrides)
    policy = node.children["policy"]
    sizes = policy.params.sizes(policy.tables())
    return node.params.left(node.tables(), sizes) if sizes else {}


def size(folder):
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("use", "more"),
    [
        ("sft", ()),
        ("grpo", EVERY_STEP),
        pytest.param("sft", ("policy.dtype=bfloat16",), marks=pytest.mark.slow),
        pytest.param(
            "sft",
            ("policy.dtype=bfloat16", "optimizer.implementation=kahan"),
            marks=pytest.mark.slow,
        ),
        pytest.param("sft", ("optimizer.implementation=offload",), marks=pytest.mark.slow),
        pytest.param("sft", ("policy.lora.rank=4", "policy.lora.alpha=8"), marks=pytest.mark.slow),
    ],
)
def test_what_is_sure_is_less_than_what_is_left_and_most_of_it(runs, request, use, more):
    text = request.getfixturevalue(use)
    parts = at_least(runs, text, *more)
    folder = runs.start(text, *more).dir
    left = size(folder / "final") + size(folder / "checkpoints")
    assert sum(parts.values()) < left
    if use == "grpo" or not more:  # an adapter's or small state is not told in full
        assert 0.5 * left < sum(parts.values())


def test_it_follows_the_table_of_checkpoints(runs, sft):
    one = at_least(runs, sft, "checkpoint.every=4")
    assert list(one) == ["1 checkpoint", "final/"]
    model, state = one["final/"], one["1 checkpoint"]
    assert at_least(runs, sft, "checkpoint.every=0") == {"final/": model}
    assert at_least(runs, sft, "checkpoint.every=5") == {"final/": model}
    assert at_least(runs, sft, "checkpoint.every='1s'")["1 checkpoint"] == state
    kept = at_least(runs, sft, "checkpoint.every=1", "checkpoint.keep_last=4")
    assert kept == {"4 checkpoints": 4 * state, "final/": model}
    passing = at_least(runs, sft, "checkpoint.every=1", "checkpoint.keep_last=3")
    assert passing == {"4 checkpoints": 4 * state}  # one is written before the oldest goes
    half = at_least(runs, sft, "checkpoint.every=4", "policy.dtype=bfloat16")
    assert half == {"1 checkpoint": state / 2, "final/": model / 2}


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize("out", ["run", "deep/below/run", None])
def test_a_run_is_refused_in_one_line_and_leaves_nothing(runs, sft, monkeypatch, dry, out):
    parts = at_least(runs, sft)
    looked = []

    def usage(path):
        looked.append(path)
        return Usage(0, 0, int(0.9 * sum(parts.values())))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    words = ["run", "r.toml", *(["--out", out] if out else []), *(["--dry-run"] if dry else [])]
    before = sorted(p.name for p in runs.folder.iterdir())
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    [line] = done.output.strip().splitlines()
    assert re.match(
        r"\d\.\d MB are free in .*, and the run needs at least \d\.\d MB: 4 checkpoints \d\.\d MB, "
        r"final/ \d\.\d MB; free some, choose another --out, or save less \(\[checkpoint\]\)",
        line,
    )
    assert sorted(p.name for p in runs.folder.iterdir()) == before
    assert all(path.exists() for path in looked)


def test_the_size_of_a_model_that_is_not_there_yet_is_in_its_name(runs, sft, monkeypatch):
    named = at_least(runs, sft, "policy.path=somebody/New-7B", "checkpoint.every=0")
    assert named == {"final/": 0.8 * 4 * 7e9}
    assert at_least(runs, sft, "policy.path=somebody/new") == {}


def test_a_disk_of_its_own_is_the_one_that_is_looked_at_from_python_too(runs, sft, disk):
    disk("small", 2**16)
    at_least(runs, sft)
    for again in range(2):
        with pytest.raises(AlignkitError, match="are free in small, and the run needs at least"):
            alignkit.run("r.toml", out="small/run")
        assert not (runs.folder / "small/run").exists(), again
    disk("small", 2**25)
    assert alignkit.run("r.toml", out="small/run").status == "done"
