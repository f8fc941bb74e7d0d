"""Checks of every advantage: groups are consecutive blocks and know nothing of each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alignkit.protocols import Completion, Example, Response, SampledBatch, Weighs
from alignkit_testing.kit import Check, Subject

GROUP = 4
REWARDS = (0.0, 1.0, 1.0, 0.25, 0.5, 0.125, 3.0, 0.0, 1.0, 0.0, 0.0, 0.0)  # three groups of four


def keeps_shape_and_dtype(subject: Subject) -> None:
    """(B,) rewards give (B,) advantages in the same type, finite and without a gradient."""
    for dtype in (torch.float32, torch.float64):
        got = _of(subject.build(), torch.tensor(REWARDS, dtype=dtype))
        assert got.shape == (len(REWARDS),), f"12 rewards give shape {tuple(got.shape)}, not (12,)"
        assert got.dtype == dtype, f"{dtype} rewards give {got.dtype} advantages"
        assert got.isfinite().all(), f"not finite: {got.tolist()}"
        assert not got.requires_grad, "advantages must not carry a gradient"


def keeps_groups_independent(subject: Subject) -> None:
    """Each group has the advantages it would have alone."""
    advantage = subject.build()
    whole = _of(advantage, _rewards())
    for start in range(0, len(REWARDS), GROUP):
        block = slice(start, start + GROUP)
        alone = _of(advantage, _rewards()[block])
        assert torch.allclose(whole[block], alone, rtol=0, atol=1e-9), (
            f"group {start // GROUP} of rewards {REWARDS[block]} gets {whole[block].tolist()} in "
            f"the batch and {alone.tolist()} alone; groups are consecutive: rewards.view(-1, "
            "group_size)"
        )


def survives_constant_groups(subject: Subject) -> None:
    """Equal rewards have no spread to divide by; advantages stay finite and moderate."""
    advantage = subject.build()
    for level in (0.0, 1.0, 0.1, 3.0):
        got = _of(advantage, torch.full((2 * GROUP,), level, dtype=torch.float64))
        assert got.isfinite().all(), f"rewards all {level:g} give {got.tolist()}"
        assert got.abs().max() <= 10 * max(abs(level), 1.0), (
            f"rewards all {level:g} give {got.tolist()}: rounding error blown up by a tiny spread"
        )


def keeps_the_order(subject: Subject) -> None:
    """In a group a better response never gets the smaller advantage, and some get more."""
    got = _of(subject.build(), _rewards()).view(-1, GROUP)
    groups = _rewards().view(-1, GROUP)
    gaps = (got[:, :, None] - got[:, None, :]) * (groups[:, :, None] - groups[:, None, :]).sign()
    assert (gaps >= -1e-9).all(), (
        f"rewards {groups.tolist()} give {got.tolist()}: a better response gets less"
    )
    assert gaps.max() > 0, f"rewards {groups.tolist()} give {got.tolist()}: nothing to learn from"


def ignores_order_within_a_group(subject: Subject) -> None:
    """Samples of a prompt are interchangeable: permuting them permutes the advantages."""
    advantage = subject.build()
    order = torch.tensor([2, 0, 3, 1, 5, 4, 7, 6, 11, 10, 9, 8])
    got, want = _of(advantage, _rewards()[order]), _of(advantage, _rewards())[order]
    assert torch.allclose(got, want, rtol=0, atol=1e-9), (
        f"permuted rewards give {got.tolist()}, want {want.tolist()}"
    )


def refuses_cut_groups(subject: Subject) -> None:
    """A batch that is not whole groups is an error: it would mix prompts from there on."""
    try:
        got = _of(subject.build(), _rewards()[:-1])
    except Exception:  # noqa: BLE001 - any refusal will do; torch's own view() raises one too
        return
    raise AssertionError(f"11 rewards in groups of 4 are accepted and give {got.tolist()}")


def leaves_its_input_alone(subject: Subject) -> None:
    """Rewards are logged after advantages are taken, so they must not change in place."""
    rewards = _rewards()
    advantage = subject.build()
    first = _of(advantage, rewards).clone()
    assert torch.equal(rewards, _rewards()), "the advantage changes the rewards in place"
    first_again = _of(advantage, rewards)
    assert torch.equal(first, first_again), "two calls with the same rewards differ"
    first_again += 1.0
    assert torch.equal(rewards, _rewards()), "advantages share memory with the rewards"


def weighs_as_it_maps(subject: Subject) -> None:
    """If it `weigh`s: (B,) or (T_i,) a response, finite, the same twice, groups of any size."""
    advantage = subject.build()
    if not isinstance(advantage, Weighs):
        return
    for sizes in ((4, 4, 4), (5, 4, 3)):
        batch = _batch(sizes)
        first, again = (_weighed(advantage, batch) for _ in range(2))
        for got, twice, length in zip(first, again, batch.lengths.tolist(), strict=True):
            assert got.shape in ((), (length,)), (
                f"weigh() gives shape {tuple(got.shape)} for a response of {length} trained tokens"
            )
            assert got.isfinite().all(), f"weigh() gives {got.tolist()}"
            assert torch.equal(got, twice), "two calls of weigh() with the same batch differ"
    assert torch.equal(_batch((4, 4, 4)).rewards, _rewards())


def _batch(sizes: tuple[int, ...]) -> SampledBatch:
    """Return twelve responses of 1 to 4 tokens in groups of ``sizes``."""
    lengths = [1 + i % 4 for i in range(len(REWARDS))]
    responses = [
        Response.of(Completion("abcd"[:n], (7,) * n, (-0.5,) * n, "stop", 0)) for n in lengths
    ]
    examples = [
        Example(f"e{g}", f"question {g}", "1") for g, size in enumerate(sizes) for _ in range(size)
    ]
    return SampledBatch(
        rewards=_rewards(), group_sizes=sizes, lengths=torch.tensor(lengths), responses=responses,
        examples=examples, parts=[{} for _ in REWARDS], step=1,
    )  # fmt: skip


def _weighed(advantage: Weighs, batch: SampledBatch) -> list[Tensor]:
    got = list(advantage.weigh(batch))
    assert len(got) == len(REWARDS), f"weigh() gives {len(got)} advantages for 12 responses"
    return got


def _rewards() -> Tensor:
    return torch.tensor(REWARDS, dtype=torch.float64)  # (B,)


def _of(advantage: Any, rewards: Tensor) -> Tensor:
    got = advantage(rewards, group_size=GROUP)
    assert isinstance(got, Tensor), f"returns {type(got).__name__}, not a tensor"
    return got


CHECKS: tuple[Check, ...] = (
    keeps_shape_and_dtype,
    keeps_groups_independent,
    survives_constant_groups,
    keeps_the_order,
    ignores_order_within_a_group,
    refuses_cut_groups,
    leaves_its_input_alone,
    weighs_as_it_maps,
)
