"""What is measured and watched of a run: seconds, arithmetic, traces, batches, warning signs.

Here: what looks on. It may end a run (a rule of ``[watch]``), but leaves every number as it is.
Not here: the metrics of a loss (``learning``) or of an evaluation (``evaluation``).
"""
