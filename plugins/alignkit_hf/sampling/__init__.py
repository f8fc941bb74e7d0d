"""Sampling: the backend, its plain sampler, and how all samplers draw and stop."""
