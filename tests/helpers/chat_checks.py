"""Rows of dialogues, and what they must be like."""

from itertools import groupby

FAMILIES = ("chatml", "qwen3", "llama3", "gemma", "mistral", "olmo2")

WITH_TOOLS = ("chatml", "qwen3", "llama3")

CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [2, 30]}}}


def plain_ids(tokenizer, messages, **how):
    return tuple(tokenizer.apply_chat_template(messages, tokenize=True, **how)["input_ids"])


def runs(row):
    """The ids of a row in stretches: (trained or not, ids); the prompt is the first."""
    flags = row.given or (False,) * len(row.response_ids)
    marked = [(False, i) for i in row.prompt_ids]
    marked += [(not flag, i) for flag, i in zip(flags, row.response_ids, strict=True)]
    return [(key, [i for _, i in run]) for key, run in groupby(marked, key=lambda pair: pair[0])]


def trained_at(row):
    flags = row.given or (False,) * len(row.response_ids)
    return {len(row.prompt_ids) - 1 + i for i, flag in enumerate(flags) if not flag}


DIALOGUE = [
    {"role": "system", "content": "Answer the sum."},
    {"role": "user", "content": "2 + 2"},
    {"role": "assistant", "content": "It is 4."},
]
