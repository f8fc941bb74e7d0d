"""Single expressions: from text to a tree, from trees to values, and whether two are equal."""
