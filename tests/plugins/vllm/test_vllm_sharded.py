"""A policy cut over several processes (FSDP2) reaches the engine whole."""

import pytest
import torch

from alignkit_hf import HfPolicy
from alignkit_vllm.weights import named_weights

SCALE = 1.25  # as in sharded.py


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_sharded_weights_arrive_whole(kind, request, sharded_trainer, tmp_path):
    folder = request.getfixturevalue(f"{kind}_folder")
    out = tmp_path / "arrived.pt"
    sharded_trainer(folder, out)
    arrived = torch.load(out)
    policy = HfPolicy(path=str(folder)).build()
    for name, value in policy.model.state_dict().items():  # lm_head too, tied or not
        assert arrived[name].shape == value.shape, name  # a shard has half the rows
        assert torch.equal(arrived[name], SCALE * value), name
    assert set(arrived) == {*dict(named_weights(policy, torch.float32)), "lm_head.weight"}
