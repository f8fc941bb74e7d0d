"""Pure text functions that several plugins share."""
