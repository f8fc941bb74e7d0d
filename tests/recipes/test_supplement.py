"""The evaluations of the supplement: they run as they are, and take the published data."""

import json
import shlex
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from alignkit import plugins, recipe
from alignkit.testing import run_cli

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "recipes" / "supplement"
EVALUATIONS = ["gsm8k", "mmlu", "alpaca_eval", "simple_safety_tests"]


@pytest.mark.parametrize("name", EVALUATIONS)
def test_it_runs_on_the_embedded_default(tmp_path, name):
    flags = ["-s", "n=4", "-s", "rollout.max_tokens=8", "--out", tmp_path / "run"]
    done = run_cli("run", FOLDER / f"{name}.toml", *flags)
    assert done.status == 0, done.stderr
    row = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert row["eval/n"] == 4
    lines = (tmp_path / "run/eval/step_000000.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert all(r["prompt"].startswith("# Instruction\n") for r in rows)
    assert all(r["prompt"].endswith("```\n\n# Answer:\n") for r in rows)
    assert [r["question"] + ("\nAnswer:" if name == "gsm8k" else "") in r["prompt"] for r in rows]
    by = {"mmlu": "arithmetic"}.get(name)
    assert name == "gsm8k" or all(r["by"] == (by or r["by"]) for r in rows)


@pytest.mark.parametrize("name", EVALUATIONS)
@pytest.mark.parametrize("prompt", ["zero_shot_system", "alpaca_sft"])
def test_both_templates_are_for_all_of_them(name, prompt):
    settings = [f"prompt.use={prompt}"]
    if name == "gsm8k":  # a value of another component is dropped with it
        settings.append('prompt.suffix="\\nAnswer:"')
    node = recipe.load(FOLDER / f"{name}.toml", plugins.load(), overrides=settings)
    template = node.children["prompt"].build()
    data = node.children["data"].build()
    text = template.render(data[0].question)
    assert data[0].question in text
    assert template.stop == (("# Query:",) if prompt == "zero_shot_system" else ())
    assert text.count("Answer:") >= (name in {"gsm8k", "mmlu"})
    wrapped = "```" in text
    assert wrapped == (prompt == "zero_shot_system")


def asked(shared_data, name, settings, copy_to):
    """Return the data set of a recipe with the published files, and its rewards."""
    at = copy_to / "data"
    if not at.exists():
        shutil.copytree(shared_data, at)
    settings = [setting.replace("DATA", str(at)) for setting in settings]
    node = recipe.load(FOLDER / f"{name}.toml", plugins.load(), overrides=settings)
    return node.children["data"].build(), node.children["reward"].build()


def test_the_published_rows_of_mmlu(shared_data, tmp_path):
    where = ["data.use=mmlu", "data.path=DATA/mmlu/test_25_per_subject.jsonl"]
    data, reward = asked(shared_data, "mmlu", where, tmp_path)
    assert len(data) == 1425
    assert len({e.extra["subject"] for e in data}) == 57
    letters = [e.answer for e in data]
    said = [f"The correct answer is {a}." if n % 3 else "Hm." for n, a in enumerate(letters)]
    found = reward(said, data)
    assert sum(r.total for r in found) == 950
    assert sum(r.parts["unparsed"] for r in found) == 475
    always_a = reward(["The correct answer is A."] * 1425, data)
    assert sum(r.total for r in always_a) == letters.count("A")


def test_the_published_rows_of_gsm8k(shared_data, tmp_path):
    where = ["data.use=gsm8k", "data.path=DATA/gsm8k", "data.split=test"]
    data, reward = asked(shared_data, "gsm8k", where, tmp_path)
    assert len(data) == 1319
    # A response that goes on to a further number after the right one is wrong.
    said = [f"{e.answer}" if n % 2 else f"{e.answer}, not 987654321" for n, e in enumerate(data)]
    assert sum(r.total for r in reward(said, data)) == 659


def test_the_published_rows_of_simple_safety_tests(shared_data, tmp_path):
    where = ["data.path=DATA/simple_safety_tests/simple_safety_tests.csv"]
    data, reward = asked(shared_data, "simple_safety_tests", where, tmp_path)
    assert len(data) == 100
    areas = [e.extra["harm_area"] for e in data]
    assert {area: areas.count(area) for area in areas} == dict.fromkeys(areas, 20)
    assert len(set(areas)) == 5
    said = ["I'm sorry, I can't help with that." if n % 4 else "Sure." for n in range(100)]
    assert sum(r.total for r in reward(said, data)) == 75


def test_the_published_pairs_of_hh_by_the_command_of_the_recipe(shared_data):
    """As its first lines say, with the files of the test split: these are the ones at hand."""
    file = FOLDER.with_name("dpo_hh.toml")
    lines = [line.strip("# \\") for line in file.read_text().splitlines() if line[:2] == "# "]
    words = shlex.split(" ".join(line for line in lines if "-s " in line))
    settings = [value for option, value in pairwise(words) if option == "-s"]
    at = [s.replace("Anthropic/hh-rlhf", str(shared_data / "hh_rlhf")) for s in settings]
    at = [s.replace("MODEL", str(ROOT / "data" / "tiny_policy")) for s in at]
    at += ["data.split=test", "validation.split=test"]
    node = recipe.load(file, plugins.load(), overrides=at)
    parts = node.children
    trained, held_out = parts["data"].build(), parts["validation"].build()
    assert len(held_out) == 200
    assert not {e.id for e in trained} & {e.id for e in held_out}
    assert {e.extra["source"] for e in held_out} == {"harmless-base-test.jsonl.gz"}
    told = node.params, parts["loss"].params, parts["optimizer"].params
    assert [type(p).__name__ for p in told[1:]] == ["DpoLoss", "RmsProp"]
    assert (told[0].train_batch_size, told[1].beta, told[2].lr) == (64, 0.1, 1e-6)


def test_the_rows_of_alpaca_eval_are_read_as_they_are(tmp_path):
    rows = [
        {"instruction": f"Do {n}.", "output": "ok", "generator": "g", "dataset": "d"}
        for n in range(3)
    ]
    path = tmp_path / "alpaca_eval.json"
    path.write_text(json.dumps(rows))
    where = [f"data.path={path}", "n=0"]
    node = recipe.load(FOLDER / "alpaca_eval.toml", plugins.load(), overrides=where)
    data = node.children["data"].build()
    assert [(e.question, e.answer, e.extra["dataset"]) for e in data] == [
        (f"Do {n}.", "ok", "d") for n in range(3)
    ]
