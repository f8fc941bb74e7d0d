"""Which rows an objective is computed for: what a loss declares, and what is added to it."""

import gc

import pytest

from alignkit import Params
from alignkit.component import made_by, make
from alignkit.engine.learning.objective import Objective, Surrogate
from alignkit.engine.learning.reference_table import Reference
from alignkit.engine.tokens import TrainRow
from alignkit.protocols import LossType
from alignkit_losses import loss_type
from alignkit_normalizers import MaskedMean

ROWS = [TrainRow((1,), (2, 3), 1.0), TrainRow((1,), (4,), 0.0), TrainRow((1,), (), 2.0)]


def computed(surrogate, rows=ROWS):
    return list(Objective(surrogate, MaskedMean().build()).computed(rows))


@pytest.mark.parametrize("component", list(loss_type()), ids=lambda c: c.name)
def test_built_in_losses_leave_out_rows_without_advantage(component):
    surrogate = Surrogate.of(make(component.params()))
    assert computed(surrogate) == [ROWS[0], ROWS[2]]
    assert computed(surrogate.monitored().truncated(2.0)) == [ROWS[0], ROWS[2]]


@pytest.mark.parametrize(("estimator", "all_rows"), [("k1", False), ("k2", True), ("k3", True)])
def test_a_penalty_in_the_loss_pushes_rows_without_advantage_too(estimator, all_rows):
    """The k1 penalty is in the reward; the loss only logs it."""
    loss = make(next(iter(loss_type())).params())
    found = computed(Surrogate.of(loss).penalised(Reference(0.1, estimator, None)))
    assert found == (ROWS if all_rows else [ROWS[0], ROWS[2]])


def test_a_loss_that_declares_nothing_is_computed_for_all_rows():
    assert computed(Surrogate.of(lambda x: x)) == ROWS

    class Silent(Params[LossType]):
        """Declares nothing."""

        def build(self):
            return lambda x: x

    assert computed(Surrogate.of(make(Silent()))) == ROWS


def test_what_was_made_is_known_by_its_parameters_as_long_as_it_lives():
    (component, *_) = loss_type()
    params = component.params()
    losses = [make(params) for _ in range(50)]
    assert all(made_by(loss) is params for loss in losses)
    del losses
    gc.collect()
    others = [lambda x, i=i: x for i in range(500)]  # some take the place in memory of the old
    assert not any(made_by(other) for other in others)


def test_lists_can_be_made_too():
    class Listed(Params[list]):
        """Builds what cannot be referred to weakly."""

        def build(self):
            return [1]

    made = make(Listed())
    assert made == [1]
    assert made_by(made) is None
