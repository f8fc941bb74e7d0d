"""Checks of every optimizer: it moves the weights downhill and follows its schedule."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer as TorchOptimizer
from torch.optim.lr_scheduler import LRScheduler

from alignkit.abilities import Looks, TakesShards
from alignkit_testing.kit import Check, Subject

STEPS = 20


def clips_at_a_positive_norm(subject: Subject) -> None:
    """`max_grad_norm` is above 0; `inf` means never."""
    limit = subject.build().max_grad_norm
    positive = isinstance(limit, float | int) and limit > 0
    assert positive, f"max_grad_norm is {limit!r}, not a number above 0"


def gives_an_optimizer_and_a_schedule(subject: Subject) -> None:
    """`start` returns torch's two objects, and takes parameters that can be read only once."""
    made = _started(subject, _model())
    assert isinstance(made[0], TorchOptimizer), f"start gives {type(made[0]).__name__} first"
    assert isinstance(made[1], LRScheduler), f"start gives {type(made[1]).__name__} second"
    assert made[1].optimizer is made[0], "the schedule belongs to another optimizer"


def holds_every_parameter_once(subject: Subject) -> None:
    """Each parameter is in one group, none is forgotten."""
    model = _model()
    optimizer, _ = _started(subject, model)
    held = sorted(id(p) for group in optimizer.param_groups for p in group["params"])
    want = sorted(id(p) for p in model.parameters())
    assert held == want, f"given {len(want)} parameters, the optimizer holds {len(held)}"


def looks_and_holds_every_parameter(subject: Subject) -> None:
    """An optimizer that is shown the model first holds each of its parameters once, too."""
    model, optimizer = _model(), subject.build()
    looks: Any = optimizer
    if not isinstance(looks, Looks):
        return
    looks.look(model)
    groups = optimizer.start(model.parameters(), total_steps=STEPS)[0].param_groups
    held = sorted(id(p) for group in groups for p in group["params"])
    assert held == sorted(map(id, model.parameters())), "shown the model, it holds other weights"


def goes_downhill(subject: Subject) -> None:
    """Steps lower a smooth loss, and move every weight."""
    model = _model()
    before = [p.detach().clone() for p in model.parameters()]
    losses = list(_train(model, *_started(subject, model)))
    assert losses[-1] < losses[0], f"{STEPS} steps take the loss from {losses[0]} to {losses[-1]}"
    for then, now in zip(before, model.parameters(), strict=True):
        assert not torch.equal(then, now), f"a weight of shape {tuple(now.shape)} never moves"


def follows_its_schedule(subject: Subject) -> None:
    """Learning rates are finite, never negative, and not zero all along, step by step."""
    model = _model()
    optimizer, schedule = _started(subject, model)
    rates = [_rate(optimizer) for _ in _train(model, optimizer, schedule)]
    sound = all(math.isfinite(r) and r >= 0 for r in rates) and max(rates) > 0
    assert sound, f"learning rates of {STEPS} steps: {rates}"


def treats_numbers_by_themselves(subject: Subject) -> None:
    """An optimizer that says `on_shards` updates halves of tensors as it does the whole ones."""
    optimizer: Any = subject.build()
    if not (isinstance(optimizer, TakesShards) and optimizer.on_shards):
        return
    model = _model()
    halves = [nn.Parameter(h.clone()) for p in model.parameters() for h in _halves(p.detach())]
    whole, _ = _started(subject, model)
    cut, _ = subject.build().start(iter(halves), total_steps=STEPS)
    for _ in range(3):
        whole.zero_grad()
        _loss(model).backward()  # type: ignore[no-untyped-call]
        grads = [h for p in model.parameters() if p.grad is not None for h in _halves(p.grad)]
        for half, grad in zip(halves, grads, strict=True):
            half.grad = grad.clone()
        whole.step()
        cut.step()
    want = [h for p in model.parameters() for h in _halves(p.detach())]
    apart = max((a - b).abs().max().item() for a, b in zip(halves, want, strict=True) if a.numel())
    assert apart < 1e-6, f"on_shards is true, but halves of tensors are off by up to {apart:.3g}"


def _halves(tensor: Tensor) -> tuple[Tensor, Tensor]:
    middle = tensor.shape[0] // 2
    return tensor[:middle], tensor[middle:]


def resumes(subject: Subject) -> None:
    """State saved halfway and loaded into a new optimizer goes on to the same weights."""
    model, other = _model(), _model()
    optimizer, schedule = _started(subject, model)
    list(_train(model, optimizer, schedule, STEPS // 2))
    saved = copy.deepcopy([x.state_dict() for x in (model, optimizer, schedule)])
    again, schedule_again = _started(subject, other)
    for part, state in zip((other, again, schedule_again), saved, strict=True):
        part.load_state_dict(state)
    list(_train(model, optimizer, schedule, STEPS // 2))
    list(_train(other, again, schedule_again, STEPS // 2))
    for name, want in model.state_dict().items():
        apart = (other.state_dict()[name] - want).abs().max().item()
        assert apart == 0, f"after resuming, {name} is off by up to {apart:.3g}; is state lost?"


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def _started(subject: Subject, model: nn.Module) -> tuple[Any, Any]:
    made: tuple[Any, Any] = subject.build().start(
        (p for p in model.parameters()), total_steps=STEPS
    )
    return made


def _loss(model: nn.Module) -> Tensor:
    x = torch.linspace(-1, 1, 32).reshape(8, 4)
    loss: Tensor = (model(x) - 3).pow(2).mean()
    return loss


def _train(model: nn.Module, optimizer: Any, schedule: Any, steps: int = STEPS) -> Iterator[float]:
    """Take steps as the learner does; yield the loss before each, then the last loss."""
    for _ in range(steps):
        loss = _loss(model)
        yield loss.item()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    yield _loss(model).item()


def _rate(optimizer: Any) -> float:
    return max(float(group["lr"]) for group in optimizer.param_groups)


CHECKS: tuple[Check, ...] = (
    clips_at_a_positive_norm,
    gives_an_optimizer_and_a_schedule,
    holds_every_parameter_once,
    looks_and_holds_every_parameter,
    goes_downhill,
    follows_its_schedule,
    treats_numbers_by_themselves,
    resumes,
)
