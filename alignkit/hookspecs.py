"""The hook specifications: the whole contract between the kernel and its plugins.

A plugin is a module that implements any of these with ``@hookimpl``. Each yields
``Component(name, Params)`` items. Brackets show the recipe tables in which the built-in
algorithms let a recipe choose among them.
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
    """Offer environments, which answer the policy (``[environment] use = "calculator"``)."""
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
def preference_loss() -> Iterable[Component[p.PreferenceLoss]]:
    """Offer losses on pairs of responses (``[loss] use = "ipo"`` of ``dpo``)."""
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
    """Offer places to send metrics to (``[[trackers]] use = "console"``)."""
    return ()


@hookspec
def command() -> Iterable[Component[click.Command]]:
    """Offer subcommands of the command line (``alignkit report``); recipes do not use them."""
    return ()
