"""Which cases of a large grid run by default: one in so many, and each value in some."""

from collections import Counter, defaultdict
from itertools import chain


def chosen(cases, every):
    """Return the indices of the cases that run.

    A case is the names and values of its parameters. One in ``every`` runs along each axis, and
    the last case with a value that would be left out. Values of one case alone are no axis.
    """
    found = [[(name, repr(value)) for name, value in case.items()] for case in cases]
    at = defaultdict(dict)  # the number of each value among those of its parameter
    for name, value in chain(*found):
        at[name].setdefault(value, len(at[name]))
    count = Counter(chain(*found))
    left, kept, run = Counter(count), set(), []
    for i, values in enumerate(found):
        last = any(left[v] == 1 < count[v] and v not in kept for v in values)
        if last or sum(at[name][value] for name, value in values) % every == 0:
            kept.update(values)
            run.append(i)
        left.subtract(values)
    return run
