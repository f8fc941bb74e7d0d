"""What keeps a run whole: its directory's lock and manifest, signals, checkpoints, resuming."""
