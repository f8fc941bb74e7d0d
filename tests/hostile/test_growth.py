"""Time grows with a text's length, not with its square: in what meets output, data and recipes."""

import time
from itertools import product

import pytest
import tomli

from alignkit.security.secrets import redact_text
from alignkit.security.text import printable
from alignkit.text import boxes
from alignkit.toml import key_lines
from alignkit_cs336.grading import parse_gsm8k_response, parse_mmlu_response
from alignkit_data import answers
from alignkit_rewards import formats

SHORT, TIMES = 4_000, 4
QUICK = 0.03
"""Seconds for the longer text that are no concern, whatever the ratio of such small times."""


def is_toml(text):
    try:
        return bool(tomli.loads(text))
    except (tomli.TOMLDecodeError, RecursionError):
        return False


MMLU = {"options": ["one", "a b", "1.5", ""], "answer": "A"}
FUNCTIONS = {
    "redact_text": redact_text,
    "printable": printable,
    "tagged_answer": formats.tagged_answer,
    "tagged_answer, loose": lambda text: formats.tagged_answer(text, strict=False),
    "boxed_answer": formats.boxed_answer,
    "boxes": lambda text: list(boxes.boxes(text)),
    "parse_gsm8k_response": parse_gsm8k_response,
    "parse_mmlu_response": lambda text: parse_mmlu_response(MMLU, text),
    "key_lines": lambda text: key_lines(text) if is_toml(text) else None,
    "data: gsm8k_answer": answers.gsm8k_answer,
    "data: without_calculator_marks": answers.without_calculator_marks,
    "data: boxed_answer": answers.boxed_answer,
    "final_answer": formats.final_answer,
}
ATOMS = (
    "a", "Z", "1", " ", "\n", ".", ",", "-", "=", "'", '"', "{", "}", "\\", "$", "<", ">", "@", "/",
    ":", "_", "é",
)  # fmt: skip
WORDS = (
    "token=", "api_key=", "://", "https://a:b@", "--a ", "-a", "eyJaaaaaaaa.", "eyJaaaaaaaa-",
    "-----BEGIN PRIVATE KEY-----", "PRIVATE KEY", "-----BEGIN ", "bearer ", "sk-", "hf_", "ghp_",
    "\\boxed{", "\\boxed ", "\\boxed{}", "\\fbox {", "<answer>", "</answer>", "</think> <answer>",
    "</think>", "answer is ", "answer: ", "<<1=1>>", "<<1", "#### ", "1,000", '"""', "'''", "[[a",
    "a.b", 'a = "', "# ",
    "<answer> x",
)  # fmt: skip
PIECES = [*ATOMS, *WORDS, *("".join(pair) for pair in product("a1 -.={\\\"'", repeat=2))]


def seconds(function, text):
    began = time.process_time()
    function(text)
    return time.process_time() - began


@pytest.mark.parametrize("name", FUNCTIONS)
def test_four_times_the_text_takes_about_four_times_as_long(name):
    function, slow = FUNCTIONS[name], {}
    for piece, end in product(PIECES, ("", "!")):
        short, long = ((piece * n)[:n] + end for n in (SHORT, SHORT * TIMES))
        taken = seconds(function, long)
        if taken < QUICK:
            continue
        ratio = min(seconds(function, long) for _ in range(3)) / min(
            seconds(function, short) for _ in range(3)
        )
        if ratio > 1.7 * TIMES:  # the square would be TIMES² = 16
            slow[piece + end] = (taken, ratio)
    assert not slow


def test_a_word_of_16000_characters_is_redacted_at_once():
    for word in ("a", "a.", "-a", "token=", "ab1_"):
        assert seconds(redact_text, (word * 16_000)[:16_000]) < 0.5
