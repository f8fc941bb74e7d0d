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

Modules named ``*_table`` define tables of a recipe and import no torch. Nothing is imported here or
in a package's own ``__init__``: import what you need from its module.
"""
