"""The real engine against what holds of every rollout backend."""

import pytest

from alignkit.testing import conformance
from alignkit_testing import standins

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def policy_the_engine_takes(monkeypatch, untied_folder):
    monkeypatch.setattr(standins, "tiny_model", lambda: untied_folder)


test_conforms = conformance(
    "vllm",
    params={
        "rollout_backend/vllm": {"kv_cache_gib": 0.0625, "max_num_seqs": 64},
        "policy/vllm": {"url": "http://127.0.0.1:9"},
    },
)
