"""The real engine against what holds of every rollout backend.

The teacher stands behind a stand-in for a server here, and behind a real one in test_vllm_server.
"""

import socket

import pytest

from alignkit.testing import conformance
from alignkit_testing import standins

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    PORT = probe.getsockname()[1]


@pytest.fixture(autouse=True, scope="module")
def teacher(serving, untied_folder):
    from alignkit_hf import HfPolicy

    with serving(HfPolicy(path=str(untied_folder), device="cpu").build(), port=PORT):
        yield


@pytest.fixture(autouse=True)
def policy_the_engine_takes(monkeypatch, untied_folder):
    monkeypatch.setattr(standins, "tiny_model", lambda: untied_folder)


test_conforms = conformance(
    "vllm",
    params={
        "rollout_backend/vllm": {"kv_cache_gib": 0.0625, "max_num_seqs": 64},
        "policy/vllm": {"url": f"http://127.0.0.1:{PORT}"},
    },
)
