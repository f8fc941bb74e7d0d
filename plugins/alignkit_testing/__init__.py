"""The conformance kit, imported as ``alignkit.testing``. What it registers is in ``plugin``."""
