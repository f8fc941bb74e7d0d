"""Gold answers out of worked solutions."""

from __future__ import annotations

import re

_CALCULATOR = re.compile(r"<<[^<>]*=[^<>]*>>")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)|\\boxed +(?P<bare>[^\s${][^$\n]*)")


def gsm8k_answer(worked: str) -> str:
    """Return what follows the last ``####`` without thousands commas, ``""`` if nothing does.

    Cobbe et al. 2021 (arXiv:2110.14168), whose solutions end in such a line.

    >>> gsm8k_answer("She has 1000+200 = <<1000+200=1200>>1200 left.\\n#### 1,200")
    '1200'
    """
    _, mark, answer = worked.rpartition("####")
    return answer.replace(",", "").strip() if mark else ""


def without_calculator_marks(worked: str) -> str:
    """Drop the calculator annotations of GSM8K, which no reader is meant to see.

    >>> without_calculator_marks("48/2 = <<48/2=24>>24 clips")
    '48/2 = 24 clips'
    """
    return _CALCULATOR.sub("", worked)


def boxed_answer(solution: str) -> str:
    r"""Return the content of the last box whose braces balance, ``""`` if there is none.

    Hendrycks et al. 2021 (arXiv:2103.03874) box the answer with ``\boxed{…}``, ``\fbox{…}``
    or, in a few solutions, ``\boxed 5``.

    >>> boxed_answer(r"so $x = \boxed{\frac{1}{2}}$, not \boxed{2")
    '\\frac{1}{2}'
    """
    for box in reversed(list(_BOX.finditer(solution))):
        content = box["bare"] or _balanced(solution, box.end())
        if content and content.strip():
            return content.strip()
    return ""


def _balanced(text: str, start: int) -> str | None:
    r"""Return what stands in the braces that open at ``start``; ``\{`` and ``\}`` do not count."""
    depth, at = 0, start
    while at < len(text):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start + 1 : at]
        at += 2 if text[at] == "\\" else 1
    return None
