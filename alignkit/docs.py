"""The documentation of a component's fields, read from its source, for people and editors."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise
from typing import Any

from alignkit.component import Params


def field_docs(params: type[Params[Any]]) -> dict[str, str]:
    """Return the string under each field in the source, ``""`` where there is none.

    It is read on demand; pydantic would read every source file at every start.
    """
    docs = {name: info.description or "" for name, info in params.model_fields.items()}
    for cls in reversed(params.__mro__):
        if issubclass(cls, Params) and cls is not Params:
            docs |= _strings_under_fields(cls)
    return {name: docs[name] for name in params.model_fields}


@cache
def _strings_under_fields(cls: type) -> dict[str, str]:
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError):  # made without a source file
        return {}
    found = {}
    for field, below in pairwise(getattr(definition, "body", ())):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = inspect.cleandoc(text)
    return found
