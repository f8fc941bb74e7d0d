"""Checks of every policy-gradient loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from alignkit.protocols import LossInputs, LossOutput
from alignkit_testing.kit import Check, Subject
from alignkit_testing.samples import example_loss_inputs

OPTIONAL = frozenset({"old_logprobs", "ref_logprobs", "rollout_logprobs"})


def declares_what_it_reads(subject: Subject) -> None:
    """The loss works with the records that `needs` names and without the others."""
    needs = subject.component.params.needs
    assert needs <= OPTIONAL, f"needs names {sorted(needs - OPTIONAL)}; known: {sorted(OPTIONAL)}"
    try:
        subject.build()(_inputs(subject))
    except Exception as error:
        raise AssertionError(
            f"given only what needs = {sorted(needs)} declares, the loss raises {error!r}; add "
            "what it reads to needs"
        ) from error


def keeps_shape_and_dtype(subject: Subject) -> None:
    """`per_token` is (B, T) in the type of the log-probs."""
    for dtype in (torch.float32, torch.float64):
        x = _inputs(subject, dtype=dtype)
        out = subject.build()(x).per_token
        assert out.shape == x.logprobs.shape, (
            f"per_token must be (B, T) = {tuple(x.logprobs.shape)}, got {tuple(out.shape)}"
        )
        assert out.dtype == dtype, f"per_token is {out.dtype} for {dtype} log-probs"


def is_finite(subject: Subject) -> None:
    """No infinity or NaN in loss or gradient: padding, an empty response, far off policy."""
    near = _inputs(subject)
    for shift in (0.0, 10.0, -10.0):  # ratio 1, 22,026 and 1/22,026
        logprobs = (near.logprobs.detach() - 12).where(near.mask, 0.0)
        x = replace(near, logprobs=(logprobs + shift * near.mask).requires_grad_())
        others = {n: (logprobs + 0.0) for n in subject.component.params.needs}
        out, grad = _value_and_grad(subject.build(), replace(x, **others))
        for what, tensor in (("loss", out.per_token), ("gradient", grad)):
            where = (~tensor.isfinite()).nonzero().tolist()
            assert not where, (
                f"{what} is not finite at (response, token) {where[:3]} with log-ratio {shift:g}; "
                "the last response is empty, and padding holds zeros"
            )


def gradient_reaches_logprobs_only(subject: Subject) -> None:
    """What is differentiated is the policy's log-probs, and they do get a gradient."""
    x = _inputs(subject)
    out, grad = _value_and_grad(subject.build(), x)
    assert grad.abs().sum() > 0, "no gradient reaches logprobs; was a detached copy used?"
    others = [leaf for leaf in _leaves(out.per_token) if leaf is not x.logprobs]
    assert not others, f"the loss differentiates {len(others)} tensors besides logprobs"


def detaches_metrics(subject: Subject) -> None:
    """Metrics are (B, T) or (B, 1), detached: they must not keep the graph alive."""
    x = _inputs(subject)
    for name, value in subject.build()(x).metrics.items():
        assert not value.requires_grad, f"metric {name!r} is not detached"
        assert value.shape in (x.logprobs.shape, x.advantages.shape), (
            f"metric {name!r} must be (B, T) or (B, 1), got {tuple(value.shape)}"
        )


def has_the_right_sign(subject: Subject) -> None:
    """On policy, minimising raises the log-probs of good responses and lowers bad ones'."""
    x = _inputs(subject)
    level = x.logprobs.detach()
    same = dict.fromkeys(subject.component.params.needs, level)
    logprobs = level.clone().requires_grad_()
    _, grad = _value_and_grad(subject.build(), replace(x, logprobs=logprobs, **same))
    wrong = (grad * x.advantages * x.mask) > 1e-12
    assert not wrong.any(), (
        f"at (response, token) {wrong.nonzero().tolist()[:3]} a gradient step goes against the "
        "advantage; per_token is minimised, so REINFORCE is -advantages * logprobs"
    )


def keeps_responses_independent(subject: Subject) -> None:
    """A response's loss is the same alone as in any micro-batch."""
    x = _inputs(subject)
    loss = subject.build()
    whole = loss(x).per_token
    for i in range(len(whole)):
        alone = loss(_mapped(x, lambda t, i=i: t[i : i + 1])).per_token
        _same(alone, whole[i : i + 1], x.mask[i : i + 1], f"response {i} alone and in a batch of 6")


def ignores_padding(subject: Subject) -> None:
    """Neither the amount of padding nor what stands in it changes a real token's loss."""
    x = _inputs(subject)
    loss = subject.build()
    whole = loss(x).per_token
    width = x.mask.shape[1]

    def pad(t: Tensor) -> Tensor:
        return torch.cat([t, t.new_zeros(len(t), 3)], 1) if t.shape[1] == width else t

    padded = loss(_mapped(x, pad)).per_token[:, :width]
    _same(padded, whole, x.mask, "three columns of padding more")

    def smudge(t: Tensor) -> Tensor:
        return t.where(x.mask, -3.0) if t.shape == x.mask.shape and t.is_floating_point() else t

    _same(loss(_mapped(x, smudge)).per_token, whole, x.mask, "other numbers at masked positions")


def leaves_its_inputs_alone(subject: Subject) -> None:
    """No in-place change: the learner uses the same tensors again. Same inputs, same loss."""
    x = _inputs(subject)
    before = _mapped(x, lambda t: t.detach().clone())
    loss = subject.build()
    first = loss(x).per_token.detach()
    for field in fields(x):
        now, then = getattr(x, field.name), getattr(before, field.name)
        assert now is None or torch.equal(now, then), f"the loss changes {field.name} in place"
    assert torch.equal(first, loss(x).per_token), "two calls with the same inputs differ"


def is_zero_without_advantage_if_it_says_so(subject: Subject) -> None:
    """With `zero_without_advantage`, loss and gradient are exactly 0 where the advantage is."""
    params = subject.component.params
    if not params.zero_without_advantage:
        return
    generator = torch.Generator().manual_seed(0)
    for size in (0.1, 3.0):  # nats: near the old policy, and far outside any clipping range
        for names in ((), ("ref_logprobs",), ("rollout_logprobs",)):
            x = _inputs(subject)
            level = x.logprobs.detach()
            drawn = {
                name: (level - size * torch.rand(level.shape, generator=generator)).where(x.mask, 0)
                for name in sorted({"logprobs", "old_logprobs", *params.needs, *names})
            }
            drawn["logprobs"].requires_grad_()
            flat = replace(x, advantages=torch.zeros_like(x.advantages), **drawn)
            per_token = subject.build()(flat).per_token.where(x.mask, 0.0)
            assert bool((per_token == 0).all()), (
                f"zero_without_advantage = True, but the loss of responses with advantage 0 is up "
                f"to {per_token.detach().abs().max().item():.3g}; take the declaration out"
            )
            if not per_token.requires_grad:
                continue
            (grad,) = torch.autograd.grad(
                per_token.sum(), flat.logprobs, allow_unused=True, materialize_grads=True
            )
            assert not bool(grad.any()), (
                "zero_without_advantage = True, but responses with advantage 0 push the policy: "
                f"their gradient is up to {grad.abs().max().item():.3g}; take the declaration out"
            )


def weighs_each_token_by_its_own_advantage(subject: Subject) -> None:
    """Advantages (B, T) are refused by a ValueError, or each weighs its own token.

    Equal ones in a response give the loss and gradient of (B, 1).
    """
    x = _inputs(subject)
    loss = subject.build()
    spread = replace(x, advantages=x.advantages.expand_as(x.mask).clone())
    out, grad = _value_and_grad(loss, x)
    try:
        again, grad_again = _value_and_grad(loss, spread)
    except ValueError:
        return
    _same(again.per_token, out.per_token, x.mask, "equal advantages as (B, T) and as (B, 1)")
    _same(grad_again, grad, x.mask, "the gradient, for equal advantages as (B, T) and as (B, 1)")
    first = torch.arange(x.mask.shape[1])[None, :] == 0  # (1, T)
    _, some = _value_and_grad(loss, replace(x, advantages=spread.advantages * first))
    _, none = _value_and_grad(loss, replace(x, advantages=torch.zeros_like(spread.advantages)))
    _same(some, none, x.mask & ~first, "tokens without advantage beside one with: the gradient")


def _inputs(subject: Subject, dtype: torch.dtype | None = None) -> LossInputs:
    """Return a batch with just the optional records the loss declares."""
    absent: dict[str, Any] = dict.fromkeys(OPTIONAL - subject.component.params.needs)
    return replace(example_loss_inputs(dtype=dtype), **absent)


def _mapped(x: LossInputs, change: Any) -> LossInputs:
    """Apply ``change`` to every tensor, keeping a gradient on the log-probs."""
    values = {f.name: getattr(x, f.name) for f in fields(x)}
    new: dict[str, Any] = {n: None if v is None else change(v) for n, v in values.items()}
    new["logprobs"] = new["logprobs"].detach().requires_grad_()
    return LossInputs(**new)


def _value_and_grad(loss: Any, x: LossInputs) -> tuple[LossOutput, Tensor]:
    out: LossOutput = loss(x)
    assert out.per_token.requires_grad, (
        "no gradient reaches logprobs: per_token is detached from them"
    )
    total = out.per_token.where(x.mask, 0.0).sum()
    (grad,) = torch.autograd.grad(total, x.logprobs, retain_graph=True, allow_unused=True)
    return out, torch.zeros_like(x.logprobs) if grad is None else grad


def _leaves(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the tensors that ``tensor`` would send a gradient to."""
    waiting, seen = [tensor.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting += [below for below, _ in node.next_functions]


def _same(got: Tensor, want: Tensor, mask: Tensor, what: str) -> None:
    apart = ((got - want).abs().where(mask, 0.0)).max().item() if mask.any() else 0.0
    assert apart <= 1e-9, f"{what}: the loss of real tokens differs by up to {apart:.3g}"


CHECKS: tuple[Check, ...] = (
    declares_what_it_reads,
    keeps_shape_and_dtype,
    is_finite,
    gradient_reaches_logprobs_only,
    detaches_metrics,
    has_the_right_sign,
    keeps_responses_independent,
    ignores_padding,
    leaves_its_inputs_alone,
    is_zero_without_advantage_if_it_says_so,
    weighs_each_token_by_its_own_advantage,
)
