"""Answers and requests for tests of streams."""

from alignkit_vllm.requests import Answer, Request


def answer(*ids):
    return Answer(ids, tuple(-0.5 for _ in ids), "", True, False)


def request(*prompt, n=1):
    return Request(prompt, n, {"max_tokens": 4})
