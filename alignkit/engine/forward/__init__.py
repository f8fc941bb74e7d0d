"""From rows of token ids to the log-probs of their responses, and back again.

Here: all that decides how a forward and its backward pass are carried out, and nothing of what
for: cutting into micro-batches, packing, sharing prompts, recomputing, threads, out of memory,
and trying out which of that a model takes.
Not here: losses and optimizers (``learning``); decoding, which is a rollout backend's business.
"""
