"""Parse, evaluate and compare single mathematical expressions."""
