"""Several processes that do one run: the only place that knows how many there are.

Every rank holds the same policy, the same batch and the same metrics, and carries out the same
loop. Only what takes time is divided: responses are sampled, judged and learned from by one rank
each, and what it finds is given to all. Whoever divides work asks :func:`here`, in any process::

    group = here()
    mine = group.share([row.length for row in rows])  # places in ``rows``
    found = group.merge({i: computed(rows[i]) for i in mine})  # all of them, on every rank
"""

from alignkit.engine.ranks.alone import Alone, Ranks, here, put

__all__ = ["Alone", "Ranks", "here", "put"]
