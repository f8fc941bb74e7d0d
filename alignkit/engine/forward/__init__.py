"""From rows of token ids to the log-probs of their responses, and back again.

Everything about how forward and backward passes are computed is here: cutting rows into
micro-batches, packing, sharing prompts, recomputing, threads, running out of memory, and trials
that show which of these a model supports. Losses and optimizers are in ``learning``; decoding is
the task of rollout backends.
"""
