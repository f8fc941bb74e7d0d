"""Built-in prompts."""
