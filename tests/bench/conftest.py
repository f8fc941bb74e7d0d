"""Scripts, not tests: some run in an environment of their own, with TRL."""

collect_ignore_glob = ["*.py"]
