"""What is remembered of products: nothing is raised when they outlive the module that remembers."""

import gc
import sys

from alignkit import Params, component
from alignkit.protocols import LossType


class Thing:
    """A product that can be referred to weakly."""


class Makes(Params[LossType]):
    """A loss."""

    def build(self) -> LossType:
        return Thing()


def test_a_product_that_outlives_the_modules_names_ends_quietly(monkeypatch):
    raised = []
    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    product = component.make(Makes())
    assert component.made_by(product) == Makes()
    monkeypatch.setattr(component, "_MADE", None)  # as at the end of the process
    del product
    gc.collect()
    assert raised == []
