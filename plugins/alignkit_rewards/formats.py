r"""Where the answer stands in a response: ``<answer>`` tags, ``\boxed{}``.

Everything here is linear in the length of the response and never raises on what a model wrote.
"""

from __future__ import annotations

import re

from alignkit.text.boxes import boxes, outermost
from alignkit_rewards.answers.text.prose import last_boxes, last_tagged
from alignkit_rewards.answers.text.runs import UNREAD
from alignkit_rewards.answers.verdict import SeveralBoxes

TAGS = "</think> <answer>"
"""The exact mark between reasoning and answer that the r1_zero format rule asks for."""

_LOOSE_TAGS = re.compile(r"</think>\s*<answer>")


def tagged_answer(response: str, *, strict: bool = True) -> str | None:
    """Return the last complete ``<answer>…</answer>`` of a well-formed response, else None.

    A response is well formed if ``</think> <answer>`` (with any white space between the tags
    unless ``strict``) is followed by ``</answer>``. It starts inside the think block, as the
    r1_zero prompt ends in ``<think>``. What follows the last ``</answer>`` is ignored.

    >>> tagged_answer("2+2 is 4 </think> <answer> 4 </answer> or 5")
    ' 4 '
    >>> tagged_answer("4 </think><answer>4</answer>") is None
    True
    """
    begin = response.find(TAGS) if strict else _loose_start(response)
    last_end = response.rfind("</answer>")
    if begin < 0 or last_end < begin:
        return None
    start = response.rfind("<answer>", begin, last_end) + len("<answer>")
    return response[start : response.index("</answer>", start)]


def _loose_start(response: str) -> int:
    found = _LOOSE_TAGS.search(response)
    return found.start() if found else -1


def boxed_answer(response: str, *, several: SeveralBoxes = "last") -> str | None:
    r"""Return the content of the last ``\boxed{…}`` whose braces balance, else None.

    What several boxes say is the convention ``several_boxes``.

    >>> boxed_answer(r"so $\boxed{5}$, no: \boxed{x = \frac{1}{2}}. \boxed{")
    'x = \\frac{1}{2}'
    >>> boxed_answer(r"\boxed{5} or \boxed{6}", several="listed")
    '5, 6'
    """
    return last_boxes(response, several) if outermost(response) else None


def final_answer(response: str, *, several: SeveralBoxes = "last") -> str | None:
    r"""Return the text of the last ``<answer>…</answer>``, else of the last ``\boxed{…}``.

    White space is squeezed, so that answers compare as they read; None if there is neither, and
    if several boxes disagree under the convention ``several_boxes = "agree"``. The format need
    not be kept otherwise: it is what samples vote on.

    >>> final_answer(r"so <answer> x =  \boxed{\frac{1}{2}} </answer>")
    '\\frac{1}{2}'
    >>> final_answer(r"\boxed{5} or \boxed{6}", several="listed")
    '5, 6'
    """
    tagged = last_tagged(response)
    text = response if tagged is None else tagged
    boxed = outermost(text)
    if not boxed and tagged is None:
        return None
    said = last_boxes(text, several) if boxed else text
    if said.startswith(UNREAD):
        return None
    while nested := boxes(said):
        said = nested[-1].content
    return " ".join(said.split()) or None
