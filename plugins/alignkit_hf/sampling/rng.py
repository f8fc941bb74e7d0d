"""Uniform draws that depend on what is drawn, never on when or with what else.

The generator is SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
generators", OOPSLA) used by position: draw ``i`` of stream ``s`` is ``mix(s + (i + 1) * gamma)``.
A stream belongs to one response: its name is mixed from (seed, step, prompt key, sample index).
"""

from __future__ import annotations

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15
_FACTOR_1 = 0xBF58476D1CE4E5B9
_FACTOR_2 = 0x94D049BB133111EB
_MASK = 2**64 - 1


def stream(*name: int) -> int:
    """Return the 64-bit stream that ``name`` stands for, as a signed integer."""
    state = 0
    for part in name:
        state = _mix(((state ^ part) + _GAMMA) & _MASK)
    return _signed(state)


def uniforms(streams: Tensor, positions: Tensor) -> Tensor:
    """Return draw number ``positions`` of each stream.

    Args:
        streams: (B,) int64.
        positions: (B,) int64, from 0.

    Returns:
        (B,) float64 in [0, 1), multiples of 2**-53.
    """
    x = streams + (positions + 1) * _signed(_GAMMA)  # int64 arithmetic wraps, as it must
    x = (x ^ _shifted(x, 30)) * _signed(_FACTOR_1)
    x = (x ^ _shifted(x, 27)) * _signed(_FACTOR_2)
    x = x ^ _shifted(x, 31)
    return torch.mul(_shifted(x, 11).double(), 2.0**-53)


def _mix(x: int) -> int:
    x = (x ^ (x >> 30)) * _FACTOR_1 & _MASK
    x = (x ^ (x >> 27)) * _FACTOR_2 & _MASK
    return x ^ (x >> 31)


def _signed(x: int) -> int:
    return x - 2**64 if x >= 2**63 else x


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shift right filling with zeros; torch's own shift copies the sign bit."""
    return torch.bitwise_and(x >> bits, 2 ** (64 - bits) - 1)
