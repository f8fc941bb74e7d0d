"""The conformance kit; plugin authors import it as ``alignkit.testing``. It registers nothing."""
