"""Gold answers extracted from worked solutions."""

from __future__ import annotations

import re

from alignkit.text.boxes import boxes

_CALCULATOR = re.compile(r"<<[^<>]*=[^<>]*>>")
_BARE = re.compile(r"\\boxed +([^\s${][^$\n]*)")


def gsm8k_answer(worked: str) -> str:
    """Return what follows the last ``####`` without thousands commas, ``""`` if nothing does.

    Cobbe et al. 2021 (arXiv:2110.14168), whose solutions end in such a line.

    >>> gsm8k_answer("She has 1000+200 = <<1000+200=1200>>1200 left.\\n#### 1,200")
    '1200'
    """
    _, mark, answer = worked.rpartition("####")
    return answer.replace(",", "").strip() if mark else ""


def without_calculator_marks(worked: str) -> str:
    """Drop the calculator annotations of GSM8K, which are not meant for readers.

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
    places = [(box.start, box.inside, box.end - 1) for box in boxes(solution)]
    places += [(bare.start(), *bare.span(1)) for bare in _BARE.finditer(solution)]
    contents = (solution[begin:end].strip() for _, begin, end in sorted(places, reverse=True))
    return next(filter(None, contents), "")
