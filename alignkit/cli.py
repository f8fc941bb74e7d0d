"""The ``alignkit`` command."""
