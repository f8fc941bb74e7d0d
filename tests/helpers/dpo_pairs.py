"""Pairs for tests of DPO."""

import torch

from alignkit.protocols import PreferencePairs


def pairs(chosen, rejected, w, other, ref=0.0):
    """Pairs of log-probs with their numbers of tokens; the reference is the same for both."""
    given = (chosen, rejected, w, other)
    chosen, rejected, w, other = (torch.as_tensor(x, dtype=torch.float64) for x in given)
    same = torch.full_like(chosen, ref)
    return PreferencePairs(
        chosen=chosen, rejected=rejected, chosen_tokens=w, rejected_tokens=other,
        ref_chosen=same, ref_rejected=same,
    )  # fmt: skip
