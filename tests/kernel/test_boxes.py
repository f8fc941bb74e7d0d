"""Boxes in solutions and responses: which balance, where they stand, what is in them."""

import time

import pytest

from alignkit.text.boxes import boxes, outermost


@pytest.mark.parametrize(
    ("text", "every", "outer"),
    [
        (r"\boxed{1}, \fbox {2}", ["1", "2"], ["1", "2"]),
        (r"\boxed{1 \boxed{2} \boxed{3}} \boxed{4}", None, [r"1 \boxed{2} \boxed{3}", "4"]),
        (r"\boxed{\boxed{6}}", [r"\boxed{6}", "6"], [r"\boxed{6}"]),
        (r"\boxed{1 \boxed{2}", ["2"], ["2"]),  # the outer one is open
        (r"\boxed{\{ 1 \right.}", [r"\{ 1 \right."], [r"\{ 1 \right."]),  # no brace of a group
        (r"} { \boxed{x}} {", ["x"], ["x"]),
        (r"\unboxed{8} \boxedin{8} \boxed 8 \boxed{8", [], []),
        ("", [], []),
    ],
)
def test_boxes_that_balance_are_found(text, every, outer):
    found = boxes(text)
    assert [box.content for box in outermost(text)] == outer
    if every is not None:
        assert [box.content for box in found] == every
    for box in found:
        assert text[box.start] == "\\"
        assert text[box.start : box.end].endswith(f"{{{box.content}}}")


@pytest.mark.parametrize(
    "text", [r"\boxed{" * 40_000 + "}" * 40_000, r"\boxed{4" * 40_000, r"\boxed{4}" * 40_000]
)
def test_boxes_are_found_in_linear_time(text):
    """A parser that scans to the end from every opening takes minutes for these."""
    started = time.process_time()
    found = boxes(text)
    assert len(found) == text.count("}")

    assert time.process_time() - started < 5
