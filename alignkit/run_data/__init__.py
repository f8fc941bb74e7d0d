"""Read run directories: what a run logged, how it ended, runs that differ only in their seed.

For reports, sweeps and estimates; what makes a run does not need it.
"""
