"""Grading a file of saved responses."""

import json
import math

import pytest

from alignkit import AlignkitError, plugins
from alignkit_grading.files import grade_file, reward_for


@pytest.fixture(scope="module")
def registry():
    return plugins.load()


@pytest.fixture
def saved(tmp_path):
    def write(*rows):
        path = tmp_path / "saved.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def tagged(answer):
    return f"t </think> <answer>{answer}</answer>"


def test_categories_and_reasons(registry, saved):
    path = saved(
        {"id": "a", "response": tagged("x = 7/2"), "gold": "3.5"},
        {"id": "b", "response": tagged("7"), "gold": 8},
        {"id": "c", "response": ["7", tagged("7")], "gold": ["6", 7]},
    )
    summary = grade_file(path, reward_for("r1_zero", registry))
    assert dict(summary.categories) == {"(1,1)": 2, "(1,0)": 1, "(0,0)": 1}
    assert summary.mean == 0.5
    # rewards 1, 0, 0, 1: variance with n - 1 is 1/3, over n is 1/12 (with n it would be 1/16)
    assert summary.standard_error == pytest.approx(math.sqrt(1 / 12))
    verdicts = [json.loads(line) for line in summary.verdicts.read_text().splitlines()]
    assert [v["id"] for v in verdicts] == ["a", "b", "c#0", "c#1"]
    assert [v["why"] for v in verdicts] == ["expression", "different", "no answer", "exact"]
    assert [v["category"] for v in verdicts] == ["(1,1)", "(1,0)", "(0,0)", "(1,1)"]
    assert "50.0 %  format and answer right" in summary.table()


def test_columns_and_output_can_be_named(registry, saved, tmp_path):
    path = saved({"said": tagged("4"), "truth": "4"})
    columns = {"response": "said", "gold": "truth"}
    out = tmp_path / "out.jsonl"
    summary = grade_file(path, reward_for("r1_zero", registry), columns=columns, out=out)
    assert summary.categories["(1,1)"] == 1
    assert json.loads(out.read_text())["reward"] == 1.0


def test_a_reward_may_come_from_a_recipe_or_be_adjusted(registry, tmp_path):
    recipe = tmp_path / "grpo.toml"
    recipe.write_text(
        'use = "grpo"\n[reward]\nuse = "weighted_sum"\n[reward.terms.right]\nuse = "r1_zero"\n'
        '[reward.terms.short]\nuse = "length_penalty"\nfree = 1\nspan = 1\n'
    )
    from alignkit.protocols import Example

    for reward, total in (
        (reward_for(str(recipe), registry), 0.0),
        (reward_for("r1_zero", registry, ["percent='value'"]), 1.0),
    ):
        assert reward([tagged("4")], [Example("0", "", "4")])[0].total == total


@pytest.mark.parametrize(
    ("reward", "message"),
    [("r1_zer", "Did you mean 'r1_zero'"), ("weighted_sum", "terms")],
)
def test_a_wrong_reward_is_explained(registry, reward, message):
    with pytest.raises(AlignkitError, match=message):
        reward_for(reward, registry)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"response": "x"}\n', r"saved.jsonl:1: no column 'gold' or .* for the gold"),
        ('{"response": 3, "gold": "4"}\n', r":1: 'response' holds 3, not text"),
        ('{"response": "x", "gold": "4"}\nnonsense\n', r":2: not JSON"),
        ("[1]\n", r":1: not a JSON object"),
        ("", "holds no responses"),
    ],
)
def test_a_bad_file_is_named_with_its_line(registry, tmp_path, text, message):
    path = tmp_path / "saved.jsonl"
    path.write_text(text)
    with pytest.raises(AlignkitError, match=message):
        grade_file(path, reward_for("format_bonus", registry))
    assert not (tmp_path / "saved.verdicts.jsonl").exists()


def test_the_file_itself_is_not_overwritten(registry, saved):
    path = saved({"response": "x", "gold": "4"})
    with pytest.raises(AlignkitError, match="overwritten"):
        grade_file(path, reward_for("format_bonus", registry), out=path)
