"""What ``alignkit check`` prints: the checks of each component, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from textwrap import indent

import pytest

from alignkit.errors import AlignkitError


@dataclass
class Results:
    """The outcome of checks, by component."""

    passed: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, dict[str, None]] = field(default_factory=dict)
    """Why checks of a component could not run here."""
    failed: dict[str, list[str]] = field(default_factory=dict)

    def add(self, case: str, run: Callable[[], None]) -> None:
        """Carry out the check ``kind/name/check``, or ``plugin/check``."""
        subject, _, check = case.rpartition("/")
        self.passed.setdefault(subject, 0)
        try:
            run()
        except pytest.skip.Exception as reason:
            self.skipped.setdefault(subject, {})[str(reason)] = None
        except (AssertionError, AlignkitError) as error:
            self.failed.setdefault(subject, []).append(f"{check}: {error}")
        except Exception as error:  # noqa: BLE001 - whatever a component raises is its fault
            said = f"{check}: {type(error).__name__}: {error}"
            self.failed.setdefault(subject, []).append(said)
        else:
            self.passed[subject] += 1

    def text(self) -> str:
        """Return a paragraph for each component."""
        return "\n".join(self._of(subject) for subject in self.passed)

    def _of(self, subject: str) -> str:
        lines = [f"{subject}: {self.passed[subject]} passed"]
        lines += [f"  skipped: {reason}" for reason in self.skipped.get(subject, ())]
        lines += [indent(f"FAILED {said}", "  ") for said in self.failed.get(subject, ())]
        return "\n".join(lines)

    @property
    def summary(self) -> str:
        """The outcome of all checks, in a line."""
        failed = sum(map(len, self.failed.values()))
        return f"{sum(self.passed.values())} passed, {failed} failed"
