"""What keeps a run consistent: its lock and manifest, signals, checkpoints, resuming."""
