"""What each kind of component produces, and the records passed between them.

Shapes: B = responses, T = tokens of the longest response. Logarithms are natural.
Nothing here imports torch; tensors appear in annotations only. A module for each area defines the
names; this package is where all of them are imported from.

A component may offer an optional ability besides its kind's protocol. Callers check for it with
``isinstance``, or with ``judges`` and ``streams`` of :mod:`alignkit.abilities`.
"""

from alignkit.protocols.advantages import Advantage, Groups, SampledBatch, Weighs
from alignkit.protocols.data import Dataset, Observes, Orders, PromptTemplate
from alignkit.protocols.environments import Environment
from alignkit.protocols.examples import Example
from alignkit.protocols.learning import (
    LossInputs,
    LossOutput,
    LossType,
    Normalizer,
    Optimizer,
    PreferenceLoss,
    PreferenceOutput,
    PreferencePairs,
    StepTotals,
)
from alignkit.protocols.policies import Adapted, Begins, Policy, Rated
from alignkit.protocols.rewards import (
    Closes,
    Explains,
    Judges,
    Pending,
    Reads,
    Reward,
    RewardFn,
    Verdict,
    per_response,
)
from alignkit.protocols.rollouts import (
    Completion,
    Holds,
    Prefetches,
    Response,
    RolloutBackend,
    Sampling,
    SavesHeld,
    Streams,
)
from alignkit.protocols.runs import Algorithm, Divides, Run, Stateful, Tracker

__all__ = [
    "Adapted", "Advantage", "Algorithm", "Begins", "Closes", "Completion", "Dataset", "Divides",
    "Environment", "Example", "Explains", "Groups", "Holds", "Judges", "LossInputs", "LossOutput",
    "LossType", "Normalizer", "Observes", "Optimizer", "Orders", "Pending", "Policy",
    "PreferenceLoss", "PreferenceOutput", "PreferencePairs", "Prefetches", "PromptTemplate",
    "Rated", "Reads", "Response", "Reward", "RewardFn", "RolloutBackend", "Run", "SampledBatch",
    "Sampling", "SavesHeld", "Stateful", "StepTotals", "Streams", "Tracker", "Verdict", "Weighs",
    "per_response",
]  # fmt: skip
