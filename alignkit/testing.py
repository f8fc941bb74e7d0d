"""The conformance kit, by the name that plugin authors import; its code is ``alignkit_testing``."""

from alignkit_testing import (
    EXAMPLES,
    Case,
    CliResult,
    Subject,
    checks,
    conformance,
    example_loss_inputs,
    registry_of,
    run_cli,
    tiny_model,
    tiny_rows,
)

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
