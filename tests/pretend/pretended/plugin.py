"""A pytest plugin: ``pytest -p pretended.plugin`` runs tests on the pretended device.

The environment variable ALIGNKIT_PRETENDED_GUARD names the compiled guard.
"""

from __future__ import annotations

import os

from pretended import guard

guard.load(os.environ[guard.LIBRARY])

import pytest  # noqa: E402

from pretended import syncs  # noqa: E402
from pretended.device import pretending  # noqa: E402

BEYOND = {
    "8bit": "bitsandbytes has kernels of its own, which a pretended device cannot run",
    "inductor": "torch.compile writes kernels for a real card",
    "offloaded_reference": "a parameter here cannot be given data of another device",
}
"""Why tests whose name holds such a word say nothing here."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    for item in items:
        for word, reason in BEYOND.items():
            if word in item.name:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True, scope="session")
def pretended_device():
    with pretending():
        yield


@pytest.fixture(autouse=True)
def waits():
    """Syncs of the test so far: a Counter of (what for, where)."""
    syncs.FOUND.clear()
    return syncs.FOUND
