"""From questions to judged responses that keep track of what they belong to.

Here: prompts, rollout batches, their rewards, the batch sampled ahead of learning.
Not here: the backends themselves and the rewards (plugins), and statistics of responses
(``evaluation.statistics``).
"""
