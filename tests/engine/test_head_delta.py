"""The gradient of log-probs by logits in one tile of the vocabulary, wherever the targets lie."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit.engine.forward.head import _delta


def by_rows(p, places, scale):
    delta = -scale[:, None] * p
    for row, place in enumerate(places.tolist()):
        if 0 <= place < p.shape[1]:
            delta[row, place] += scale[row]
    return delta


@given(st.integers(0, 6), st.integers(1, 7), st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_targets_in_and_out_of_the_tile_give_what_rows_one_by_one_do(n, v, seed):
    draw = torch.Generator().manual_seed(seed)
    p = torch.rand(n, v, generator=draw)
    places = torch.randint(-v, 2 * v, (n,), generator=draw)
    scale = torch.randn(n, generator=draw)
    assert torch.equal(_delta(p.clone(), places, scale), by_rows(p, places, scale))


def test_no_shape_depends_on_data():
    p, scale = torch.empty(5, 3, device="meta"), torch.empty(5, device="meta")
    places = torch.empty(5, dtype=torch.long, device="meta")
    assert _delta(p, places, scale).shape == (5, 3)
