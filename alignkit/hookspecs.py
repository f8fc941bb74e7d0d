"""The hook specifications: the whole contract between the kernel and its plugins.

A plugin is a module that implements any of these with ``@hookimpl``. Each yields
``Component(name, Params)``; the words in brackets are the recipe tables of the built-in
algorithms that choose among them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from alignkit import protocols as p
    from alignkit.component import Component

hookspec = pluggy.HookspecMarker("alignkit")
hookimpl = pluggy.HookimplMarker("alignkit")


@hookspec
def algorithm() -> Iterable[Component[p.Algorithm]]:
    """Offer whole runs (``use = "grpo"`` at the top of a recipe)."""
    return ()


@hookspec
def policy() -> Iterable[Component[p.Policy]]:
    """Offer ways to hold the model that is trained (``[policy] use = "hf"``)."""
    return ()


@hookspec
def dataset() -> Iterable[Component[p.Dataset]]:
    """Offer sources of examples (``[data] use = "gsm8k"``, ``[eval.data]``)."""
    return ()


@hookspec
def prompt_template() -> Iterable[Component[p.PromptTemplate]]:
    """Offer prompt templates (``[prompt] use = "r1_zero"``)."""
    return ()


@hookspec
def reward_fn() -> Iterable[Component[p.RewardFn]]:
    """Offer judges of responses (``[reward] use = "r1_zero"``)."""
    return ()


@hookspec
def environment() -> Iterable[Component[p.Environment]]:
    """Offer what answers the policy turn by turn (``[environment] use = "calculator"``)."""
    return ()


@hookspec
def advantage() -> Iterable[Component[p.Advantage]]:
    """Offer ways to turn rewards into advantages (``[advantage] use = "group_std"``)."""
    return ()


@hookspec
def loss_type() -> Iterable[Component[p.LossType]]:
    """Offer policy-gradient surrogates (``[loss] use = "grpo_clip"``)."""
    return ()


@hookspec
def normalizer() -> Iterable[Component[p.Normalizer]]:
    """Offer ways to average per-token losses (``[normalizer] use = "masked_mean"``)."""
    return ()


@hookspec
def rollout_backend() -> Iterable[Component[p.RolloutBackend]]:
    """Offer samplers (``[rollout] use = "hf"``)."""
    return ()


@hookspec
def optimizer() -> Iterable[Component[p.Optimizer]]:
    """Offer optimizers with their schedules (``[optimizer] use = "adamw"``)."""
    return ()


@hookspec
def tracker() -> Iterable[Component[p.Tracker]]:
    """Offer places metrics go (``[[trackers]] use = "console"``)."""
    return ()


@hookspec
def command() -> Iterable[Component[click.Command]]:
    """Offer words of the command line (``alignkit report``); no recipe chooses them."""
    return ()
