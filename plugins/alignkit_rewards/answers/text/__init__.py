"""Work on text before any mathematics: extract the answer, normalise it, read words and units."""
