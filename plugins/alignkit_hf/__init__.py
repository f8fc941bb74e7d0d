"""Built-in hf."""
