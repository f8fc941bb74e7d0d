"""The policy: a transformers model loaded, adapted, served to rollouts and saved."""
