"""Marks for tests of adapters to other packages' environments."""

from importlib.util import find_spec

import pytest


def lacking(*modules):
    """Return those of ``modules`` that are not installed."""
    return [name for name in modules if find_spec(name) is None]


def skipped_without(missing):
    """Return the marks of tests that need ``missing``, and whose packages warn about themselves."""
    reason = f"{', '.join(missing)} not installed; see tests/verifiers_env.sh"
    return [
        pytest.mark.skipif(bool(missing), reason=reason),
        pytest.mark.filterwarnings("ignore"),
    ]
