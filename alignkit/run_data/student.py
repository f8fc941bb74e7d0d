"""Student's t distribution for integer degrees of freedom, exact, without a numerics library.

Abramowitz & Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
"""

from __future__ import annotations

import math
from statistics import NormalDist

LARGE = 300
"""Above this many degrees of freedom, quantiles are normal ones with the first correction."""


def two_sided(t: float, df: int) -> float:
    """Return P(|T| > |t|) for ``df`` degrees of freedom, at least 1.

    >>> round(two_sided(1.0, 1), 12)
    0.5
    """
    if df < 1:
        raise ValueError(f"Student's t needs at least 1 degree of freedom, got {df}")
    if math.isinf(t):
        return 0.0
    theta = math.atan(abs(t) / math.sqrt(df))
    return max(1.0 - (_even(theta, df) if df % 2 == 0 else _odd(theta, df)), 0.0)


def _even(theta: float, df: int) -> float:
    """Return sin θ (1 + 1/2 cos² θ + (1 3)/(2 4) cos⁴ θ + …), df / 2 terms."""
    term, total = 1.0, 1.0
    for i in range(1, df // 2):
        term *= (2 * i - 1) / (2 * i) * math.cos(theta) ** 2
        total += term
    return math.sin(theta) * total


def _odd(theta: float, df: int) -> float:
    """Return 2/π (θ + sin θ (cos θ + 2/3 cos³ θ + (2 4)/(3 5) cos⁵ θ + …))."""
    if df == 1:
        return 2 * theta / math.pi
    term = total = math.cos(theta)
    for i in range(1, (df - 1) // 2):
        term *= 2 * i / (2 * i + 1) * math.cos(theta) ** 2
        total += term
    return 2 / math.pi * (theta + math.sin(theta) * total)


def quantile(p: float, df: int) -> float:
    """Return the quantile t with P(T < t) = p; 0.5 <= p < 1.

    >>> round(quantile(0.975, 3), 6)
    3.182446
    """
    if not 0.5 <= p < 1:
        raise ValueError(f"the quantile is for shares from 0.5 to below 1, got {p}")
    z = NormalDist().inv_cdf(p)
    if df > LARGE:
        return z + (z**3 + z) / (4 * df)
    low, high = 0.0, 1.0
    while two_sided(high, df) > 2 * (1 - p):
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle, df) > 2 * (1 - p) else (low, middle)
    return high
