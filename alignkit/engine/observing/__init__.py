"""What is measured and watched of a run: seconds, arithmetic, traces, batches, warning signs.

Here: code that only observes. It may end a run (a rule of ``[watch]``), but changes no number. Not
here: the metrics of a loss (``learning``) or of an evaluation (``evaluation``).
"""
