"""The torch-level building blocks that algorithms share; the kernel never imports it."""
