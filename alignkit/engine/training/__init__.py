"""The frame of a training loop: shared parts, steps, rows of metrics, checkpoints.

Here: what every training algorithm does alike, and what makes a run go on where it stopped.
Not here: what one algorithm does in a step; its plugin writes that inside the frame.
"""
