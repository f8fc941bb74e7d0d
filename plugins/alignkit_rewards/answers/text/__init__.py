"""Before any mathematics: the answer in its prose, one spelling for it, its words and units."""
