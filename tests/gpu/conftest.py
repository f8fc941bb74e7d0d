"""What tests on a CUDA device share: ``pytest -m gpu`` runs them, on a machine without one none."""

import pytest


@pytest.fixture(scope="session")
def cuda():
    """Skip unless torch finds a CUDA device; return torch."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch


@pytest.fixture(scope="session")
def wide_folder(write_policy):
    """A small random policy with heads of 64 numbers, which every attention kernel takes."""
    return write_policy(
        "wide",
        hidden_size=128,
        intermediate_size=192,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
