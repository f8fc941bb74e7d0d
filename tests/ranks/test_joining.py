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


@pytest.mark.parametrize("error", [dist.DistStoreError, dist.DistNetworkError, RuntimeError])
def test_a_rank_that_vanishes_before_the_exchange_is_named(monkeypatch, error):
    def fails(*_, **__):
        raise error("wait timeout after 20000ms, keys: /alignkit/0/0/0//cpu//0/1")

    monkeypatch.setattr(dist, "init_process_group", fails)
    signals = SimpleNamespace()
    with pytest.raises(OtherRankFailed, match="rank 1 is gone"):
        joining._started(None, Gone(), signals, torch.device("cpu"))
    assert not vars(signals)
