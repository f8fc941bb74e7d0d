"""Read run directories: what was logged, how runs ended, and which runs differ only in their seed.

For reports, sweeps and estimates; running a recipe does not need it.
"""
