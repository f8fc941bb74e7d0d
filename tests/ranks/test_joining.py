"""What a rank says of another that vanishes while the ranks connect to each other."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from alignkit.engine.ranks import joining
from alignkit.engine.ranks.pulse import OtherRankFailed


class Gone:
    """Heartbeats of ranks of which another is gone."""

    def gone(self):
        raise OtherRankFailed("rank 1 is gone: the connection to it broke")


def start(monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(dist, "init_process_group", fails)
    signals = SimpleNamespace()
    try:
        joining._started(None, Gone(), signals, torch.device("cpu"))
    finally:
        assert not vars(signals)


@pytest.mark.parametrize("error", [dist.DistStoreError, dist.DistNetworkError, RuntimeError])
def test_a_rank_that_vanishes_before_the_exchange_is_named(monkeypatch, error):
    with pytest.raises(OtherRankFailed, match="rank 1 is gone"):
        start(monkeypatch, error("wait timeout after 20000ms, keys: /alignkit/0/0/0//cpu//0/1"))


def test_what_fails_on_this_rank_is_not_said_of_another(monkeypatch):
    with pytest.raises(dist.DistBackendError, match="unhandled system error"):
        start(monkeypatch, dist.DistBackendError("NCCL: unhandled system error"))
