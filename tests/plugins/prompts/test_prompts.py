"""The published templates to the letter, and questions that go in verbatim."""

import hashlib
import json

import pytest
from pydantic import ValidationError

from alignkit import AlignkitError
from alignkit_prompts import (
    AlpacaSft,
    File,
    QuestionOnly,
    R1Zero,
    R1ZeroThreeShot,
    ZeroShotSystem,
    prompt_template,
)

NASTY = r"Is \frac{1}{2} = {x}? {question} {0} %s \1 \\ ```" + "\n\ttabs \u00e9\u2028"
BUILT_IN = [R1Zero, R1ZeroThreeShot, QuestionOnly, AlpacaSft, ZeroShotSystem]


def assert_refused(params, key, path, says):
    """The check and the building name the file and say the same."""
    [(at, message)] = params.check({})
    assert at == key
    assert str(path) in message
    assert says in message
    with pytest.raises(AlignkitError) as error:
        params.build()
    assert str(error.value) == message


@pytest.mark.parametrize("params", BUILT_IN)
def test_a_question_with_braces_and_backslashes_is_in_the_prompt_once_and_verbatim(params):
    rendered = params().build().render(NASTY)
    assert rendered.count(NASTY) == 1
    assert len(rendered) == len(params().build().render("")) + len(NASTY)


def test_r1_zero_is_the_published_text():
    template = R1Zero().build()
    lines = template.render("What is 2+2?").split("\n")
    assert len(lines) == 3
    assert lines[0].startswith("A conversation between User and Assistant. The User asks")
    assert lines[0].endswith(
        "<think> reasoning process here </think> <answer> answer here </answer>."
    )
    assert lines[1:] == ["User: What is 2+2?", "Assistant: <think>"]
    # sha256 of the three lines with {question} in place and no newline at the end; with one
    # it would be 612cf025…: one invisible character would be another prompt.
    digest = hashlib.sha256(template.render("{question}").encode()).hexdigest()
    assert digest == "56213732da87e12ace60a2b88a16df0af18280fb0563a957cbecc938a6a2ac0e"
    assert list(template.stop) == ["</answer>"]


def test_question_only_adds_nothing():
    template = QuestionOnly().build()
    assert template.render(" What is 2+2?\n") == " What is 2+2?\n"
    assert list(template.stop) == []


def test_the_boxed_form_says_where_the_answer_goes_and_what_reads_it_agrees():
    template = QuestionOnly(form="boxed").build()
    rendered = template.render(NASTY)
    assert rendered.startswith(NASTY + "\n")
    assert rendered.count(r"\boxed{}") == 1
    assert list(template.stop) == []
    assert QuestionOnly().form == "plain"
    with pytest.raises(ValidationError):
        QuestionOnly(form="tagged")


# ---------------------------------------------------------------- worked examples


def shot(question="1+1?", reasoning="1 and 1 are 2.", answer="2"):
    return {"question": question, "reasoning": reasoning, "answer": answer}


def write(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def test_three_worked_examples_stand_in_the_r1_zero_form_before_the_question():
    plain, template = R1Zero().build(), R1ZeroThreeShot().build()
    rendered = template.render("What is 2+2?")
    head, *turns = rendered.split("\nUser: ")
    assert head == plain.render("").split("\nUser: ")[0]
    assert len(turns) == 4
    assert turns[3] == "What is 2+2?\nAssistant: <think>"
    assert "".join(["\nUser: ", turns[3]]) == plain.render("What is 2+2?").removeprefix(head)
    assert list(template.stop) == list(plain.stop)


def test_every_bundled_example_is_right_by_the_reward_it_teaches_the_form_of():
    """Its response is what follows <think>; the answer is worked out here once more."""
    from alignkit_cs336 import r1_zero_reward_fn

    rendered = R1ZeroThreeShot().build().render("")
    responses = [part.split("\nUser: ")[0] for part in rendered.split("<think>")[3:-1]]
    golds = [14 + 3 * 14 - 9, 30 / 2.5 * 4, (11 + 7) / (5 - 2)]
    assert len(responses) == len(golds)
    for response, gold in zip(responses, golds, strict=True):
        assert r1_zero_reward_fn(response, f"{gold:g}")["reward"] == 1
        assert response.endswith("</answer>")


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_file_replaces_the_worked_examples(tmp_path, n):
    rows = [shot(f"Q{i} {NASTY}", f"R{i} {{question}}", f"A{i}") for i in range(n)]
    params = R1ZeroThreeShot(shots=write(tmp_path / "shots.jsonl", *rows))
    rendered = params.build().render("mine")
    turns = [
        f"User: Q{i} {NASTY}\nAssistant: <think> R{i} {{question}} </think> "
        f"<answer> A{i} </answer>\n"
        for i in range(n)
    ]
    head = R1Zero().build().render("").split("\nUser: ")[0]
    assert rendered == f"{head}\n{''.join(turns)}User: mine\nAssistant: <think>"
    assert params.facts({}) == {"worked examples": str(n)}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "there is no worked example"),
        (b"\n \n", "there is no worked example"),
        (b"caf\xe9", "not UTF-8 (byte 3)"),
        (b"{", ":1: not JSON"),
        (b"[1]", ":1: an example is an object with texts question, reasoning, answer"),
        (json.dumps(shot(answer=2)).encode(), "an object with texts"),
        (json.dumps({"question": "q", "answer": "a"}).encode(), "an object with texts"),
        (json.dumps(shot(answer="2 </answer>")).encode(), "leave the tags out"),
    ],
    ids=["empty", "blank", "latin", "cut", "list", "number", "without reasoning", "tags"],
)
def test_a_bad_file_of_examples_is_refused_before_and_while_building(tmp_path, content, says):
    path = tmp_path / "shots.jsonl"
    path.write_bytes(content)
    assert_refused(R1ZeroThreeShot(shots=path), "shots", path, says)


def test_alpaca_sft_is_the_published_text():
    template = AlpacaSft().build()
    assert template.render("Name three fruits.") == (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nName three fruits.\n\n### Response:"
    )
    assert list(template.stop) == []


def test_zero_shot_system_has_the_three_headings_and_fences_the_question():
    template = ZeroShotSystem().build()
    rendered = template.render("Who are you?")
    assert rendered.startswith("# Instruction\n")
    assert rendered.endswith("\n\n# Query:\n```Who are you?```\n\n# Answer:\n")
    assert list(template.stop) == ["# Query:"]


def test_file_is_read_to_the_last_character(tmp_path):
    path = tmp_path / "my.txt"
    path.write_text("Q {question}\n{other} A {question}\n", encoding="utf-8")
    template = File(path=path, stop=("\n\n", "Q ")).build()
    # every placeholder of the template once, none inside the question, nothing else touched
    assert template.render("{question}?") == "Q {question}?\n{other} A {question}?\n"
    assert list(template.stop) == ["\n\n", "Q "]


def test_file_drops_one_final_newline_if_asked(tmp_path):
    path = tmp_path / "my.txt"
    path.write_text("{question}\nA:\n\n", encoding="utf-8")
    params = File(path=path, strip_final_newline=True)
    assert params.build().render("Q") == "Q\nA:\n"
    assert params.facts({}) == {"template ends in": repr("{question}\nA:\n")}


def test_file_ignores_a_byte_order_mark(tmp_path):
    path = tmp_path / "my.txt"
    path.write_bytes(b"\xef\xbb\xbf{question} =")
    assert File(path=path).build().render("2+2") == "2+2 ="


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"Question: {Question}\n", "has no {question}; put it where the question belongs"),
        (b"caf\xe9 {question}", "not UTF-8 (byte 3); save the template as UTF-8"),
    ],
)
def test_a_bad_template_file_is_refused_by_name_before_and_while_building(tmp_path, content, says):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    assert_refused(File(path=path), "path", path, says)


def test_a_folder_in_place_of_a_template_is_refused(tmp_path):
    [(key, message)] = File(path=tmp_path).check({})
    assert key == "path"
    assert message.startswith(f"{tmp_path}: cannot be read")


def test_an_empty_stop_string_is_refused(tmp_path):
    with pytest.raises(ValidationError, match="at least 1 character"):
        File(path=tmp_path, stop=("ok", ""))


def test_names_are_those_of_the_contract():
    names = {component.name for component in prompt_template()}
    assert names == {
        "r1_zero", "r1_zero_three_shot", "question_only", "alpaca_sft", "zero_shot_system", "file",
        "chat",
    }  # fmt: skip
