"""Lines of directives of a batch system's script."""

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignkit.errors import AlignkitError
from alignkit.text.batch import in_directive

NAME = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/\\"), min_size=1)


@given(st.lists(NAME, min_size=1, max_size=3).map(" ".join))
def test_a_path_is_one_word_of_a_directive_or_refused(name):
    path = Path("/lab") / name
    if "'" in name and '"' in name:
        with pytest.raises(AlignkitError, match="both kinds of quotes"):
            in_directive(path)
    else:
        assert shlex.split(in_directive(path)) == [str(path)]


def test_a_plain_path_stands_as_it_is():
    assert in_directive(Path("/lab/runs-2/a_b.log")) == "/lab/runs-2/a_b.log"
