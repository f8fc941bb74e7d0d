"""How good a policy is: held-out questions put to it, and what is counted of its answers.

Here: the ``[eval]`` table, the fixed subsets, the statistics of judged responses.
Not here: when it is time to evaluate (``training``), and how responses are drawn (``sampling``).
"""
