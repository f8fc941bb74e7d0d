"""Secrets are recognised by name, shape and value; what is none is left alone."""

import pytest

from alignkit.security.left_out import lost
from alignkit.security.secrets import REDACTED, redact, redact_command, redact_text

SECRETS = [
    "https://user:hunter2@host:8000/v1",
    "https://s3cr3t@host/",
    "postgres://u:p%40ss@db/x",
    "postgres://u:p@ss@db/x",
    "GET /v1?api_key=abcdef&n=1",
    "Authorization: Bearer abc123def456",
    "sk-proj-0123456789abcdefABCD",
    "sk-ant-api03-aB_c-0123456789abcdefABCD-x_yz",
    "hf_ABCDEFGHIJKLMNOPqrst",
    "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "github_pat_11ABCDEFG0123456789_abcdef",
    "glpat-0123456789abcdefghij",
    "xoxb-0123456789-abcdef",
    "AKIAIOSFODNN7EXAMPLE",
    "AIzaSyA0123456789abcdefghijklmnopqrstuvw",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    "Client(url, api_key='abc')",
    '{"password": "abc"}',
    "WANDB_API_KEY=abc alignkit run",
    "--hf-token abc",
    "judge.url=http://x/?token=abcdefgh1",
]
PLAIN = [
    "max_tokens=8, min_tokens: 4, eos_token='</s>'",
    "https://host:8000/v1?n=1",
    "mail me@example.org about it",
    "token = tokens[0]",
    "ids[token]: int = 7",
    "grad_norm 0.1234 at 5d41402abc4b2a76b9719d911017c592ae1b2c3d",
    "loss of sk-learn and hf_policy",
    "/data/sk-learn-experiments-2024/rows.jsonl",
    "sk-learn_experiments_2024 and sk-image-segmentation-baseline-20240102",
    "a basic description of bearer bonds",
    "the secret of training",
    "token_budget = 8192",
    'File "/a/b.py", line 3, in tokenizer',
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_in_a_text_is_left_out(text):
    found = redact_text(text)
    assert REDACTED in found
    for part in (
        "hunter2",
        "s3cr3t",
        "p%40ss",
        "p@ss",
        "abc",
        "MIIE",
        "IOSF",
        "c2ln",
        "0123456789",
    ):
        assert part not in found.lower() or part not in text
    assert redact_text(found) == found  # once is enough


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_secret_is_left_as_it_is(text):
    assert redact_text(text) == text


def test_a_value_of_the_environment_is_left_out_wherever_it_turns_up(monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", "p/lain+value")
    monkeypatch.setenv("SHORT_PASSWORD", "1")
    monkeypatch.setenv("MAX_TOKENS", "p lain other")
    text = "refused: p/lain+value, q=p%2Flain%2Bvalue, 1, p lain other"
    assert redact_text(text) == f"refused: {REDACTED}, q={REDACTED}, 1, p lain other"


def test_tables_are_gone_through_and_numbers_stay():
    table = {
        "n_steps": 3,
        "judge": {"apiKey": "abc", "url": "http://me:pw@host", "max_tokens": 5},
        "list": [{"password": "x"}, "plain"],
        "hf_token": "",
    }
    assert redact(table) == {
        "n_steps": 3,
        "judge": {"apiKey": REDACTED, "url": f"http://{REDACTED}@host", "max_tokens": 5},
        "list": [{"password": REDACTED}, "plain"],
        "hf_token": "",
    }
    assert lost(redact(table)) == [("judge", "apiKey"), ("judge", "url"), ("list", "0", "password")]


def test_a_command_line_is_gone_through_word_by_word():
    command = [
        "alignkit",
        "run",
        "--api-key",
        "abc",
        "-s",
        "judge.password=abc",
        "--max-tokens",
        "8",
    ]
    assert redact_command(command) == [
        "alignkit", "run", "--api-key", REDACTED, "-s", f"judge.password={REDACTED}",
        "--max-tokens", "8",
    ]  # fmt: skip
