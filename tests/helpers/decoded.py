"""Shared by tests of sampling with the hf backend."""

import torch


def greedy(model, prompt, count):
    """What transformers' own loop says, one prompt at a time."""
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()


def ids(completions):
    return [[c.token_ids for c in group] for group in completions]
