"""The number of threads: by cores, by the container's share, by the model's size."""

import pytest
import torch

from alignkit.engine.forward import threads
from alignkit.engine.forward.threads import fit_threads, quota, threads_for


@pytest.mark.parametrize(
    ("weights", "cores", "cpus", "wanted"),
    [
        (10**9, 16, None, 16),
        (10**9, 64, 3.5, 4),  # without a look at the quota: 64
        (10**9, 8, 0.4, 1),
        (10**9, 2, 12.0, 2),
        (450_000, 16, None, 1),
    ],
)
def test_by_size_cores_and_share(weights, cores, cpus, wanted):
    assert threads_for(weights, cores, cpus) == wanted


def test_what_a_container_is_given(tmp_path):
    assert quota(tmp_path) is None
    old = tmp_path / "cpu"
    old.mkdir()
    (old / "cpu.cfs_quota_us").write_text("-1\n")
    (old / "cpu.cfs_period_us").write_text("100000\n")
    assert quota(tmp_path) is None
    (old / "cpu.cfs_quota_us").write_text("250000\n")
    assert quota(tmp_path) == 2.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert quota(tmp_path) == 1.5


@pytest.fixture
def unsaid(monkeypatch):
    """Nobody has said a number; what is set is put back."""
    before = torch.get_num_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(2)
    monkeypatch.setattr(threads, "_AT_START", 2)
    yield monkeypatch
    torch.set_num_threads(before)


def test_a_small_model_gets_one_and_a_said_number_stays(unsaid):
    model = torch.nn.Linear(4, 4)
    unsaid.setenv("OMP_NUM_THREADS", "2")
    fit_threads(model)
    assert torch.get_num_threads() == 2
    unsaid.delenv("OMP_NUM_THREADS")
    torch.set_num_threads(3)  # by hand, or for a model before this one
    fit_threads(model)
    assert torch.get_num_threads() == 3
    torch.set_num_threads(2)
    fit_threads(model)
    assert torch.get_num_threads() == 1
