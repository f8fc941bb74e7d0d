"""The keyed generator."""

import torch

from alignkit_hf.sampling.rng import stream, uniforms


def test_the_published_sequence():
    """First outputs of SplitMix64 from state 1234567, as its reference C code prints them."""
    reference = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    got = uniforms(torch.full((5,), 1234567), torch.arange(5))
    assert got.dtype == torch.float64
    assert got.tolist() == [(x >> 11) / 2**53 for x in reference]


def test_streams_are_64_bit_and_differ_in_every_part():
    base = (0, 0, 0, 0)
    names = [
        base,
        (1, 0, 0, 0),
        (0, 1, 0, 0),
        (0, 0, 1, 0),
        (0, 0, 0, 1),
        (-1, 0, 0, 0),
        (2**70, 0, 0, 0),
    ]
    streams = [stream(*name) for name in names]
    assert streams[-1] == streams[0]  # parts count modulo 2**64
    assert len(set(streams[:-1])) == 6
    assert all(-(2**63) <= s < 2**63 for s in streams)


def test_neighbouring_streams_are_uniform_and_unrelated():
    """64 samples x 64 tokens of one prompt: mean, variance and correlation within 4 sigma."""
    names = torch.tensor([stream(0, 0, 0, sample) for sample in range(64)])
    table = torch.stack([uniforms(names, torch.full((64,), t)) for t in range(64)])
    assert 0 <= float(table.min()) < 1e-3
    assert 1 - 1e-3 < float(table.max()) < 1
    assert abs(float(table.mean()) - 0.5) < 4 * (1 / 12 / 4096) ** 0.5
    for a, b in ((table[:, :-1], table[:, 1:]), (table[:-1], table[1:])):
        r = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
        assert abs(float(r)) < 4 / 4032**0.5
