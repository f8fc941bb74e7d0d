"""Faster ways to sample what :mod:`alignkit_hf.sampling.plain` samples, where a model qualifies."""
