"""Shared by tests of rewards in a file of one's own."""

import pytest

from alignkit.protocols import Example

EXAMPLE = Example("0", "q", "4", {"level": 3})


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)
