"""How good a policy is: it answers held-out questions, and its answers are counted.

Here: the ``[eval]`` table, the fixed subsets, the statistics of judged responses.
Not here: when it is time to evaluate (``training``), and how responses are drawn (``sampling``).
"""
