"""Text functions that several plugins share. Pure functions; imports nothing."""
