"""The torch-level building blocks that algorithms share; the kernel never imports it.

Six packages, and a package and three modules that all of them use. A package imports only
from those below it::

    training     the frame of a loop: its parts, its steps, checkpoints
    evaluation   how good a policy is: questions put to it on the side
    sampling     from questions to judged responses
    learning     from rows to updates of the weights (knows nothing of sampling)
    forward      from rows to log-probs, whatever is padded, packed, shared or recomputed
    observing    what is measured and watched of a run
    asking       calls of a recipe's components
    tokens       the rows of token ids that all of them pass on
    seeds        the orders and generators that all of them draw from
    ranks        the processes that a run is divided over, and models that are cut over them

Modules named ``*_table`` define tables of a recipe and import no torch. ``__all__`` lists what
plugins may rely on; these names are imported at first use, so that ``from alignkit.engine import
SamplingParams`` needs no torch either. All else is internal, and imported from its module.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignkit.engine.forward.frozen import PolicyView, frozen_copy
    from alignkit.engine.forward.head import entropy_from_logits
    from alignkit.engine.forward.logprobs import response_logprobs, token_logprobs
    from alignkit.engine.learning.reference_table import Reference, ReferenceTable
    from alignkit.engine.sampling.environment_table import EnvironmentParams
    from alignkit.engine.sampling.rollout_table import SamplingParams, check_request
    from alignkit.engine.seeds import shuffled
    from alignkit.engine.tokens import TrainRow, encode, encode_prompt

__all__ = [
    "EnvironmentParams", "PolicyView", "Reference", "ReferenceTable", "SamplingParams", "TrainRow",
    "check_request", "encode", "encode_prompt", "entropy_from_logits", "frozen_copy",
    "response_logprobs", "shuffled", "token_logprobs",
]  # fmt: skip
_MODULES = {
    "EnvironmentParams": "sampling.environment_table",
    "PolicyView": "forward.frozen",
    "Reference": "learning.reference_table",
    "ReferenceTable": "learning.reference_table",
    "SamplingParams": "sampling.rollout_table",
    "TrainRow": "tokens",
    "check_request": "sampling.rollout_table",
    "encode": "tokens",
    "encode_prompt": "tokens",
    "entropy_from_logits": "forward.head",
    "frozen_copy": "forward.frozen",
    "response_logprobs": "forward.logprobs",
    "shuffled": "seeds",
    "token_logprobs": "forward.logprobs",  # nosec B105 # no password
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name in _MODULES:
        return getattr(import_module(f"alignkit.engine.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'alignkit.engine' has no attribute {name!r}")
