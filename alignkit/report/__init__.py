"""Look at finished and running runs: tables, curves, one HTML page, PNGs, CSV, the terminal.

Reads run directories only; imports neither the ML stack nor a plugin.
"""
