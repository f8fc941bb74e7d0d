"""Parse and compare whole answers: lists, tuples, intervals, relations, quantities."""
