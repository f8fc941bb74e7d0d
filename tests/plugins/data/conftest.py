"""What tests of data share."""

import pytest


@pytest.fixture(scope="session")
def found():
    """Return a function that gives everything a run sees of the data of a table."""

    def of(table):
        problems = list(table.check({}))
        if problems:
            return problems
        data = table.build()
        return table.facts({}), [data[i] for i in range(len(data))]

    return of
