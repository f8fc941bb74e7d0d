"""From questions to judged responses that never lose what they belong to.

Here: prompts, rollout batches, their rewards, the batch sampled ahead of learning.
Not here: the backends themselves and the rewards (plugins), and what is counted of responses
(``evaluation.statistics``).
"""
