r"""The named parts of expressions: constants, functions, ``\frac`` and its kin, matrices."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

from alignkit_rewards.expression import Tree
from alignkit_rewards.normalize import ROW
from alignkit_rewards.tokens import (
    ALIASES,
    DECORATION,
    FUNCTIONS,
    GREEK,
    MATRICES,
    UnreadableError,
)

if TYPE_CHECKING:
    from alignkit_rewards.expression import _Parser

_TWO = ("num", Fraction(2), 0)
_TEN = ("num", Fraction(10), 0)


def read_command(parser: _Parser, name: str) -> Tree:
    """Read what follows a command or a known name."""
    if name in GREEK:
        return parser.variable(name)
    if name in FUNCTIONS and name != "sqrt":
        return _function(parser, ALIASES.get(name, name))
    if name in DECORATION:
        return _decorated(parser, name)
    if name not in _READERS:
        raise UnreadableError(f"command {name}")
    return _READERS[name](parser)


def argument(parser: _Parser) -> Tree:
    r"""Read a LaTeX argument: ``{…}``, one digit of ``\frac12``, or one atom."""
    if parser.accept("{"):
        bars, parser.bars = parser.bars, 0
        inner = parser.sum()
        parser.bars = bars
        parser.expect("}")
        return inner
    kind, value = parser.peek()
    if kind == "num" and value.isdigit() and len(value) > 1:
        parser.tokens[parser.at] = ("num", value[1:])
        return ("num", Fraction(int(value[0])), 0)
    return parser.atom()


def _root(parser: _Parser) -> Tree:
    if parser.accept("["):
        index = parser.sum()
        parser.expect("]")
        return ("pow", _radicand(parser), ("div", ("num", Fraction(1), 0), index))
    return ("fn", "sqrt", _radicand(parser))


def _radicand(parser: _Parser) -> Tree:
    """Read what is under a root; ``√12`` written plainly is the root of 12."""
    if parser.peek()[0] == "num":
        return parser.number(parser.next()[1])
    return argument(parser)


def _fraction(parser: _Parser) -> Tree:
    top = argument(parser)
    return ("div", top, argument(parser))


def _binomial(parser: _Parser) -> Tree:
    top = argument(parser)
    return ("fn", "binomial", top, argument(parser))


def _rounded(name: str) -> Callable[[_Parser], Tree]:
    def read(parser: _Parser) -> Tree:
        inner = parser.sum()
        if not parser.accept("r" + name):
            raise UnreadableError(name)
        return ("fn", name, inner)

    return read


def _function(parser: _Parser, name: str) -> Tree:
    base: Tree | None = None
    if name == "log" and parser.accept("_"):
        base = argument(parser)
    power = parser.exponent() if parser.accept("^") else None
    arguments = _arguments(parser, name)
    value: Tree = ("fn", name, *arguments)
    if name in {"log", "lg"} and (base is not None or name == "lg"):
        value = ("div", ("fn", "log", *arguments), ("fn", "log", base or _TEN))
    if name == "exp":
        value = ("pow", ("const", "e"), arguments[0])
    if power is None:
        return value
    inverse = power == ("neg", ("num", Fraction(1), 0)) and name in {"sin", "cos", "tan"}
    return ("fn", "arc" + name, *arguments) if inverse else ("pow", value, power)


def _arguments(parser: _Parser, name: str) -> list[Tree]:
    for opening, closing in (("(", ")"), ("{", "}"), ("[", "]")):
        if parser.accept(opening):
            bars, parser.bars = parser.bars, 0
            found = [parser.sum()]
            while parser.accept(","):
                found.append(parser.sum())
            parser.bars = bars
            parser.expect(closing)
            return found
    return [_bare_argument(parser)]


def _bare_argument(parser: _Parser) -> Tree:
    r"""Read ``2x`` of ``\sin 2x \cos x``: factors up to an operator, a bracket or a function."""
    if parser.accept("-"):
        return ("neg", _bare_argument(parser))
    value = parser.power()
    while parser.starts_factor() and not _stops_argument(parser.peek()):
        value = ("mul", value, parser.power())
    return value


def _stops_argument(token: tuple[str, str]) -> bool:
    kind, value = token
    return (kind == "cmd" and value in FUNCTIONS - {"sqrt"}) or value in {"(", "[", "|"}


def _decorated(parser: _Parser, command: str) -> Tree:
    r"""Read ``\mathrm{e}``, ``\vec{v}``, ``\overline{AB}``: one letter, or a marked name."""
    name = parser.group_text()
    if not name.isalpha() or (len(name) > 1 and command in {"text", "mathrm"}):
        raise UnreadableError(f"text {name!r}")
    return parser.variable(name)


def _matrix(parser: _Parser) -> Tree:
    kind = parser.group_text()
    if kind not in MATRICES:
        raise UnreadableError(f"environment {kind}")
    if kind == "array" and parser.peek() == ("sym", "{"):
        parser.group_text()
    rows: list[Tree] = []
    row: list[Tree] = []
    while not parser.accept("end"):
        row.append(parser.sum())
        if not parser.accept("&"):
            rows.append(("row", *row))
            row = []
            if not parser.accept(ROW) and parser.peek() != ("cmd", "end"):
                raise UnreadableError("matrix")
    if parser.group_text() != kind or row or len({len(r) for r in rows}) != 1:
        raise UnreadableError("matrix")
    matrix: Tree = ("mat", *rows)
    return ("fn", "det", matrix) if kind == "vmatrix" else matrix


_READERS: dict[str, Callable[[_Parser], Tree]] = {
    "pi": lambda parser: ("const", "pi"),
    **dict.fromkeys(("infty", "infinity", "oo"), lambda parser: ("const", "inf")),
    "frac": _fraction,
    "sqrt": _root,
    "binom": _binomial,
    "lfloor": _rounded("floor"),
    "lceil": _rounded("ceil"),
    "begin": _matrix,
}
