"""From rows of token ids to the log-probs of their responses, and back again.

Here: everything about how forward and backward passes are computed, but not what they are for:
cutting into micro-batches, packing, sharing prompts, recomputing, threads, running out of memory,
and trying out which of these a model supports.
Not here: losses and optimizers (``learning``); decoding, which is a rollout backend's business.
"""
