"""Accuracy on graders' own test cases and on the golds of MATH and GSM8K."""

import json
from itertools import pairwise

import pytest

from alignkit_rewards.answers import Conventions, judge

RULES = Conventions()


def test_accuracy_on_the_cases_of_other_graders(grader_cases):
    rows = [r for r in grader_cases("cases.jsonl") if not r["debatable"]]
    right = {"bare": [], "text": [], "isaac": []}
    false_positives = []
    for row in rows:
        correct = judge([row["gold"]], row["pred"], RULES).correct
        kind = "isaac" if row["source"] == "isaac" else row["form"]
        right[kind].append(correct == row["expected"])
        if correct and not row["expected"]:
            false_positives.append(row["id"])
    accuracy = {kind: sum(found) / len(found) for kind, found in right.items()}
    assert accuracy["bare"] >= 0.97
    assert accuracy["text"] >= 0.96
    assert accuracy["isaac"] >= 0.85
    assert len(false_positives) <= 1, false_positives


def read(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("template", ["{}", "${}$", r"\boxed{{{}}}", "The answer is ${}$."])
def test_math_golds_equal_themselves(shared_data, template):
    golds = [row["answer"] for row in read(shared_data / "math500" / "test.jsonl")]
    assert len(golds) == 500
    assert [g for g in golds if not judge([g], template.format(g), RULES).correct] == []


def test_different_math_golds_are_not_equal(shared_data):
    golds = sorted({row["answer"] for row in read(shared_data / "math500" / "test.jsonl")})
    plain = [g for g in golds if g.lstrip("-").isdigit()]
    pairs = list(pairwise(plain))
    other = [g for g in golds if g not in plain]
    pairs += [(a, b) for i, a in enumerate(other) for b in other[i + 1 : i + 6]]
    equal = [pair for pair in pairs if judge([pair[0]], pair[1], RULES).correct]
    twice = [(r"2 \sqrt{5}", r"2\sqrt{5}"), (r"\frac{1}{4}", r"\frac14"), (r"36^\circ", "40_9")]
    known = set(map(frozenset, twice))  # one value in two spellings
    assert [p for p in equal if frozenset(p) not in known] == []


def test_gsm8k_solutions_and_golds_equal_themselves(shared_data):
    for row in read(shared_data / "gsm8k" / "test.jsonl"):
        gold = row["answer"].rpartition("####")[2].strip()
        for answer in (gold, gold.replace(",", ""), f"${gold}", f"{gold} dollars"):
            assert judge([row["answer"]], answer, RULES).correct, (gold, answer)
