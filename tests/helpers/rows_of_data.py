"""Files of rows for tests of data sets."""

import json

import pytest

from alignkit import AlignkitError


def write(path, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def problems(params):
    """What is found before anything is built, after making sure build refuses it too."""
    found = list(params.check({}))
    with pytest.raises(AlignkitError) as error:
        params.build()
    assert str(error.value) == "\n".join(message for _, message in found)
    return found
