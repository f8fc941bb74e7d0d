"""Whole answers: lists, tuples, intervals, relations, quantities, and whether two are equal."""
