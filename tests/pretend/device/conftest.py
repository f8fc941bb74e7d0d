"""Policies on the pretended device, fresh for each test: nothing was tried out on them before."""

import pytest


@pytest.fixture(scope="session")
def small_folder(write_policy):
    """A random policy with heads of 16 numbers, which the variable-length kernel takes."""
    return write_policy(
        "small",
        hidden_size=32,
        intermediate_size=48,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )


@pytest.fixture
def policy(small_folder):
    """``policy(**keys)`` loads it; neither model nor kernel was asked anything in this test."""
    from alignkit.engine.forward import varlen
    from alignkit_hf import HfPolicy

    varlen._faults.clear()

    def make(**keys):
        return HfPolicy(path=str(small_folder), **{"device": "cuda", **keys}).build()

    return make
