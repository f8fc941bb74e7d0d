"""How far a model sees, and for how long its positions hold."""

import pytest
from transformers import AutoConfig

from alignkit.engine.forward.spans import borders, length_bound, windows

ROPE = {"rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
LONG = {"short_factor": [1.0] * 64, "long_factor": [2.0] * 64}


@pytest.mark.parametrize(
    ("kind", "settings", "want"),
    [
        ("qwen2", {}, []),
        ("mistral", {"sliding_window": 8}, [8]),
        ("llama4_text", {"attention_chunk_size": 16}, [16]),
        ("gpt_neo", {"window_size": 24}, [24]),
    ],
)
def test_windows(kind, settings, want):
    assert windows(AutoConfig.for_model(kind, **settings)) == want


def test_borders_are_windows_and_original_lengths():
    rope = {**ROPE, "rope_type": "yarn"}
    config = AutoConfig.for_model("mistral", sliding_window=8, rope_parameters=rope)
    assert borders(config) == [8, 64]


@pytest.mark.parametrize(
    ("rope", "bound"),
    [
        ({"rope_type": "default", "rope_theta": 1e4}, None),
        ({**ROPE, "rope_type": "yarn"}, None),
        ({**ROPE, **LONG, "rope_type": "longrope"}, 64),
        ({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, 4096),
    ],
)
def test_rows_are_bounded_where_all_angles_follow_the_length(rope, bound):
    config = AutoConfig.for_model("llama", rope_parameters=rope, max_position_embeddings=4096)
    assert length_bound(config) == bound
