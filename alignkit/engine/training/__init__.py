"""The frame of a training loop: shared parts, steps, rows of metrics, checkpoints.

Here: what every training algorithm has in common, and what lets a run resume where it stopped.
Not here: what one algorithm does in a step; its plugin defines that inside the frame.
"""
