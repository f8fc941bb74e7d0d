"""The zoo: each architecture is right in every pass, or refused in one line. README.md has all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sizes import known_types
from variants import VARIANTS
from zoo import UNBUILT, judged

QUICK = ("llama", "qwen2", "qwen3", "gemma2", "mistral", "phi3")
CASES = [
    pytest.param((kind, settings), id=f"{kind} {name}".strip())
    for kind in known_types()
    for name, settings in {"": {}, **VARIANTS.get(kind, {})}.items()
    if kind not in UNBUILT
]


def is_right_or_refused(kind, settings):
    found = judged(kind, settings)
    assert not found.wrong
    return bool(found.refused) != bool(found.decode and found.learner)


@pytest.mark.parametrize("kind", QUICK)
def test_the_most_used_families_are_right(kind):
    assert is_right_or_refused(kind, {})


@pytest.mark.parametrize("case", CASES)
@pytest.mark.one_in(5)
@pytest.mark.slow
def test_every_architecture_is_right_or_refused(case):
    assert is_right_or_refused(*case)
