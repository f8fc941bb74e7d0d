"""What plugins need to know of text that no one of them owns. Pure functions; imports nothing."""
