r"""Parse the named parts of expressions: constants, functions, ``\frac`` and similar, matrices."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

from alignkit_rewards.answers.algebra.expression import Parser
from alignkit_rewards.answers.algebra.tokens import (
    ALIASES,
    DECORATION,
    MATRICES,
    PLAIN_SUBSCRIPT,
    UnreadableError,
)
from alignkit_rewards.answers.algebra.trees import Tree, contains
from alignkit_rewards.answers.text.normalize import ROW
from alignkit_rewards.answers.text.vocabulary import FUNCTIONS, GREEK

MAX_LENGTH = 3000
_OF_ANGLES = frozenset({"sin", "cos", "tan", "sec", "csc", "cot"})


@lru_cache(maxsize=8192)
def parse(text: str) -> Tree:
    r"""Return the tree of an expression in canonical spelling; UnreadableError if there is none.

    >>> parse(r"2x^{2}")[1:]
    (('num', Fraction(2, 1), 0), ('pow', ('var', 'x'), ('num', Fraction(2, 1), 0)))
    """
    if len(text) > MAX_LENGTH:
        raise UnreadableError("too long")
    if "\\" not in text:
        text = PLAIN_SUBSCRIPT.sub(r"_{\1}", text)
    return Parser(text, _command).expression()


def tree_of(text: str) -> Tree | None:
    """Return the tree of an expression, None if it must be left to math-verify."""
    try:
        tree = parse(text)
    except (UnreadableError, RecursionError):
        return None
    return tree if tree[0] == "mat" or "\\begin" not in text or not contains(tree, "mat") else None


def _command(parser: Parser, name: str) -> Tree:
    if name in GREEK:
        return parser.variable(name)
    if name in FUNCTIONS and name != "sqrt":
        return _function(parser, ALIASES.get(name, name))
    if name in DECORATION:
        return _decorated(parser, name)
    if name not in _READERS:
        raise UnreadableError(f"command {name}")
    return _READERS[name](parser)


def _argument(parser: Parser) -> Tree:
    r"""Read a LaTeX argument: ``{…}``, one digit of ``\frac12``, or one atom."""
    if parser.accept("{"):
        return parser.bracketed("}")
    kind, value = parser.peek()
    if kind == "num" and value.isdigit() and len(value) > 1:
        parser.tokens[parser.at] = ("num", value[1:])
        return ("num", Fraction(int(value[0])), 0)
    return parser.atom()


def _root(parser: Parser) -> Tree:
    if parser.accept("["):
        index = parser.sum()
        parser.expect("]")
        return ("pow", _radicand(parser), ("div", ("num", Fraction(1), 0), index))
    return ("fn", "sqrt", _radicand(parser))


def _radicand(parser: Parser) -> Tree:
    """Read the radicand; in plain text, ``√12`` is the root of 12."""
    if parser.peek()[0] == "num":
        return parser.number(parser.next()[1])
    return _argument(parser)


def _of_two(*head: str) -> Callable[[Parser], Tree]:
    def read(parser: Parser) -> Tree:
        return (*head, _argument(parser), _argument(parser))

    return read


def _rounded(name: str) -> Callable[[Parser], Tree]:
    def read(parser: Parser) -> Tree:
        inner = parser.sum()
        if not parser.accept("r" + name):
            raise UnreadableError(name)
        return ("fn", name, inner)

    return read


def _function(parser: Parser, name: str) -> Tree:
    base: Tree | None = None
    if name == "log" and parser.accept("_"):
        base = _argument(parser)
    power = parser.exponent() if parser.accept("^") else None
    outer, parser.angles = parser.angles, name in _OF_ANGLES
    arguments = _arguments(parser)
    parser.angles = outer
    value: Tree = ("fn", name, *arguments)
    if name == "lg" or base is not None:
        ten: Tree = ("num", Fraction(10), 0)
        value = ("div", ("fn", "log", *arguments), ("fn", "log", base or ten))
    if name == "exp":
        value = ("pow", ("const", "e"), arguments[0])
    if power is None:
        return value
    inverse = power == ("neg", ("num", Fraction(1), 0)) and name in {"sin", "cos", "tan"}
    return ("fn", "arc" + name, *arguments) if inverse else ("pow", value, power)


def _arguments(parser: Parser) -> list[Tree]:
    for opening, closing in ("()", "{}", "[]"):
        if parser.accept(opening):
            return parser.listed(closing)
    return [_bare_argument(parser)]


def _bare_argument(parser: Parser) -> Tree:
    r"""Read ``2x`` of ``\sin 2x \cos x``: factors up to an operator, bracket or function."""
    if parser.accept("-"):
        return ("neg", _bare_argument(parser))
    value = parser.power()
    while parser.starts_factor() and not _stops_argument(parser.peek()):
        value = ("mul", value, parser.power())
    return value


def _stops_argument(token: tuple[str, str]) -> bool:
    kind, value = token
    return (kind == "cmd" and value in FUNCTIONS - {"sqrt"}) or value in {"(", "[", "|"}


def _decorated(parser: Parser, command: str) -> Tree:
    r"""Read ``\mathrm{e}``, ``\vec{v}``, ``\overline{AB}``: one letter, or a marked name."""
    name = parser.group_text()
    if not name.isalpha() or (len(name) > 1 and command in {"text", "mathrm"}):
        raise UnreadableError(f"text {name!r}")
    return parser.variable(name)


def _matrix(parser: Parser) -> Tree:
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


_READERS: dict[str, Callable[[Parser], Tree]] = {
    "pi": lambda parser: ("const", "pi"),
    **dict.fromkeys(("infty", "infinity", "oo"), lambda parser: ("const", "inf")),
    "frac": _of_two("div"),
    "binom": _of_two("fn", "binomial"),
    "sqrt": _root,
    "lfloor": _rounded("floor"),
    "lceil": _rounded("ceil"),
    "begin": _matrix,
}
