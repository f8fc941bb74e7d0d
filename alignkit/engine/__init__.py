"""The torch-level building blocks that algorithms share; the kernel never imports it.

A package or module imports only from those below it::

    training        what the loop of an algorithm is built from: its parts, its steps, checkpoints
    evaluation      how good a policy is, measured on questions that it is not trained on
    sampling        from questions to judged responses
    learning        from rows to updates of the weights (imports nothing of sampling)
    forward         from rows to log-probs, whether padded, packed, shared or recomputed
    observing       what is measured and watched during a run
    prompting       from examples to prompts, with a text template or a chat template
    chat_rows       from dialogues to rows
    chat            from dialogues to token ids
    chat_template   which chat template is used, with which arguments
    asking          calls of a recipe's components
    tokens          rows of token ids
    seeds           orders and random generators
    ranks           the processes that a run is divided over, and models sharded over them

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
