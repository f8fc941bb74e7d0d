"""What plugin authors test with: one line checks every component of a plugin.

::

    from alignkit.testing import conformance

    test_conforms = conformance("cispo")

Nothing here imports torch before a check needs it.
"""

from alignkit_testing.kit import Case, Subject, checks, conformance
from alignkit_testing.samples import EXAMPLES, example_loss_inputs
from alignkit_testing.standins import registry_of, tiny_model, tiny_rows
from alignkit_testing.terminal import CliResult, run_cli

__all__ = [
    "EXAMPLES",
    "Case",
    "CliResult",
    "Subject",
    "checks",
    "conformance",
    "example_loss_inputs",
    "registry_of",
    "run_cli",
    "tiny_model",
    "tiny_rows",
]
