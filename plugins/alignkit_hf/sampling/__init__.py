"""Sampling: the backend, its plain sampler, and what every sampler draws and stops by."""
