"""Comparisons with numbers worked out by hand, in float64."""

import torch

MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])
"""Two responses, of two tokens and of one."""


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def close(got, want, atol=1e-12):
    torch.testing.assert_close(got, f64(want), rtol=0, atol=atol)
