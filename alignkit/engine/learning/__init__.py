"""From rows to updates of the weights.

Here: the optimizer step, and how losses and rows are prepared for it: corrections, penalties and
references, rows of given responses.
Not here: where responses come from (``sampling``), and the loop around the step (``training``).
"""
