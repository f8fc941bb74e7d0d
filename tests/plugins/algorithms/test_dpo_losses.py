"""The losses of the algorithm dpo, by hand."""

from dataclasses import replace

import pytest
import torch

from alignkit_algorithms.dpo import (
    differentiated,
)
from alignkit_algorithms.pairs import DpoLoss, IpoLoss, KtoLoss, OrpoLoss, SimpoLoss
from dpo_pairs import pairs

# One pair: log π is -2 over 2 tokens and -6 over 3, log πref -3 and -5, so that h = 4 - 2 = 2.
PAIR = ([-2.0], [-6.0], [2], [3])


@pytest.mark.parametrize(
    ("table", "loss", "margin", "slopes"),
    [
        # m = 0.5 * 2 = 1: log(1 + 1/e); slopes -+0.5 σ(-1)
        (DpoLoss(beta=0.5), 0.3132616875, 1.0, (-0.1344707107, 0.1344707107)),
        # target 1 / 0.5 = 2 is met exactly; with τ = 1 the target is 0.5: 1.5² and slope 2 * 1.5
        (IpoLoss(tau=0.25), 0.0, 0.5, (0.0, 0.0)),
        (IpoLoss(tau=1.0), 2.25, 2.0, (3.0, -3.0)),
        # per token -1 and -2: m = 2, m - γ = 1.5: log(1 + e^-1.5); slopes -+2 σ(-1.5) / |y|
        (SimpoLoss(beta=2.0, gamma=0.5), 0.2014132780, 2.0, (-0.1824255238, 0.1216170159)),
        # odds 1/(e-1) and 1/(e²-1): m = log(e + 1); 1 + 0.2 log(1 + 1 / (e + 1))
        # d log odds / d log p = 1 / (1 - p): slopes -(1 + 0.2 s e/(e-1)) / 2, 0.2 s e²/(e²-1) / 3
        # with s = σ(-m) = 1 / (e + 2)
        (OrpoLoss(weight=0.2), 1.0476366053, 1.3132616875, (-0.5335286607, 0.0163409434)),
        # r_w = 1, r_l = -1, so z_w = 1, z_l = 0 (not -1): σ(-0.5) + 2 σ(-1); without the bound at 0
        # the first would be σ(-1). Slopes -0.5 σ(0.5) σ(-0.5) and 2 * 0.5 σ(1) σ(-1).
        (
            KtoLoss(beta=0.5, undesirable=2.0),
            0.9154235116,
            1.0,
            (-0.1175018561, 0.1966119332),
        ),
    ],
    ids=["dpo", "ipo at its target", "ipo", "simpo", "orpo", "kto"],
)
def test_losses_and_slopes_by_hand(table, loss, margin, slopes):
    given = replace(
        pairs(*PAIR), ref_chosen=torch.tensor([-3.0]), ref_rejected=torch.tensor([-5.0])
    )
    out, A = differentiated(table.build(), given)
    assert float(out.loss) == pytest.approx(loss, abs=1e-9)
    assert float(out.margin) == pytest.approx(margin, abs=1e-9)
    assert (-A).tolist() == pytest.approx(slopes, abs=1e-9)


def test_the_reference_point_of_kto_is_of_the_other_responses_and_has_no_gradient():
    """r_w 1 and 3, r_l -1 and 2: z_w = 2, z_l = 0.5; a gradient through z would differ."""
    chosen, rejected = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 2.0])
    given = pairs(chosen, rejected, torch.zeros(2), torch.zeros(2))
    out, A = differentiated(KtoLoss(beta=1.0).build(), given)
    s = torch.sigmoid
    want = s(-(chosen - 0.5)) + s(-(2 - rejected))
    assert out.loss.tolist() == pytest.approx(want.tolist(), abs=1e-7)
    slopes = [
        -s(chosen - 0.5) * s(-(chosen - 0.5)),
        s(2 - rejected) * s(-(2 - rejected)),
    ]
    assert (-A).tolist() == pytest.approx(torch.stack(slopes, 1).flatten().tolist(), abs=1e-7)


def test_the_advantages_of_dpo_are_the_closed_form_to_the_bit():
    """What it computed before losses could be chosen: ±β σ(-m), for tiny and huge margins too."""
    draw = torch.Generator().manual_seed(3)
    chosen, rejected = 60 * torch.randn(2, 5000, generator=draw, dtype=torch.float64)
    _, A = differentiated(DpoLoss(beta=0.7).build(), pairs(chosen, rejected, chosen, rejected))
    expected = 0.7 * torch.sigmoid(-0.7 * (chosen - rejected))
    assert torch.equal(A[::2], expected)
    assert torch.equal(A[1::2], -expected)
