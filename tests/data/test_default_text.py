"""The shipped problems, traces and pairs: remade to the byte, right, and apart from each other."""

import operator
import re
import subprocess
import sys
from random import Random

import pytest

from alignkit_rewards.formats import tagged_answer

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
EQUATION = re.compile(r" (\d+) ([-+*/]) (\d+) = (\d+) \.")
FILES = (
    "problems/train.jsonl",
    "problems/test.jsonl",
    "sft/train.jsonl",
    "preferences/train.jsonl",
    "preferences/test.jsonl",
    "tools/train.jsonl",
    "tools/test.jsonl",
    "chat/train.jsonl",
)


def is_right(response):
    """Whether every equation holds (worked out here, not by the maker's code)."""
    found = EQUATION.findall(response)
    assert found, response
    return all(OPERATIONS[op](int(a), int(b)) == int(c) for a, op, b, c in found)


def test_the_command_remakes_the_text_files_to_the_byte(data, tmp_path):
    command = [sys.executable, str(data / "make.py"), "--text-only", "--out", str(tmp_path)]
    subprocess.run(command, check=True, cwd=tmp_path)
    made = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.jsonl"))
    assert made == sorted(FILES)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (data / name).read_bytes(), name


def test_another_seed_gives_other_problems(maker, rows):
    other = maker("files").rows(seed=1)["problems/train.jsonl"]
    shipped = {row["question"] for row in rows("problems/train.jsonl")}
    assert sum(row["question"] in shipped for row in other) < len(other) / 10


def test_train_and_test_share_no_question(rows):
    train, test = ([r["question"] for r in rows(f"problems/{p}.jsonl")] for p in ("train", "test"))
    assert len(train) >= 4000
    assert len(test) >= 512
    assert len(set(train)) == len(train)
    assert len(set(test)) == len(test)
    assert not set(train) & set(test)
    for name in ("sft/train.jsonl", "preferences/train.jsonl"):
        assert {r["question"] for r in rows(name)} <= set(train)
    assert {r["question"] for r in rows("preferences/test.jsonl")} <= set(test)


@pytest.mark.parametrize("name", ["preferences/train.jsonl", "preferences/test.jsonl"])
def test_the_chosen_response_is_right_and_the_rejected_one_is_not(rows, name):
    wrong = 0
    for row in rows(name):
        assert is_right(row["chosen"])
        assert tagged_answer(row["chosen"]).strip() == row["answer"]
        tagged = tagged_answer(row["rejected"])
        assert tagged is None or tagged.strip() != row["answer"]
        assert is_right(row["rejected"]) is (tagged is None)
        wrong += tagged is not None
    assert 0.4 < wrong / len(rows(name)) < 0.6


def test_the_gold_answer_is_what_the_equations_come_to(maker):
    rng = Random(5)
    for problem in maker("problems").draw_distinct(500, rng):
        text = maker("traces").steps(problem)
        assert is_right(text)
        assert EQUATION.findall(text)[-1][3] == str(problem.answer)
        assert 1 <= len(problem.equations) <= 3
        assert 1 <= problem.answer <= 999


def test_a_problem_tells_every_number_its_solution_starts_from(maker):
    for problem in maker("problems").draw_distinct(500, Random(6)):
        told = [int(n) for n in re.findall(r"\d+", problem.question)]
        first, *later = problem.equations
        assert told == [first.left, first.right, *(e.right for e in later)]
        for before, after in zip(problem.equations, later, strict=False):
            assert after.left == before.value


def test_traces_go_on_from_the_prompt_and_a_tenth_of_them_is_wrong(rows):
    from alignkit_prompts import R1Zero

    prompt = R1Zero().build()
    wrong = 0
    traces = rows("sft/train.jsonl")
    for row in traces:
        assert row["prompt"] == prompt.render(row["question"])
        given = tagged_answer(row["response"])
        assert given is not None
        assert is_right(row["response"]) is (given.strip() == row["answer"])
        wrong += given.strip() != row["answer"]
    assert 0.08 < wrong / len(traces) < 0.12


def test_dialogues_are_two_questions_with_their_right_solutions(rows):
    gold = {row["question"]: row["answer"] for row in rows("problems/train.jsonl")}
    dialogues = [row["messages"] for row in rows("chat/train.jsonl")]
    asked = [m["content"] for messages in dialogues for m in messages if m["role"] == "user"]
    assert len(asked) == len(set(asked)) == 2 * len(dialogues) == 1024
    for messages in dialogues:
        assert [m["role"] for m in messages] == ["user", "assistant"] * 2
        for question, said in (messages[:2], messages[2:]):
            assert is_right(said["content"])
            assert tagged_answer(said["content"]).strip() == gold[question["content"]]


def test_a_slip_changes_the_last_result_and_the_answer_alike(maker):
    problems = maker("problems")
    problem = problems.Problem("", (problems.Equation(3, "+", 4), problems.Equation(7, "*", 1)))
    for seed in range(20):
        spoilt = maker("traces").slipped(problem, Random(seed))
        # 7 stands in both equations; only the last one's result may change
        found = re.fullmatch(
            r" 3 \+ 4 = 7 \. 7 \* 1 = (\d+) \. </think> <answer> (\d+) </answer>", spoilt
        )
        assert found, spoilt
        assert found[1] == found[2] != "7"


def test_everything_together_stays_below_8_megabytes(data):
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "."], cwd=data, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    files = [data / name for name in tracked if name] or [p for p in data.rglob("*") if p.is_file()]
    assert sum(path.stat().st_size for path in files) < 8_000_000
