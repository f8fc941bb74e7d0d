r"""A small parser from LaTeX or plain-text mathematics to expression trees.

Trees are nested tuples whose first item names the node:

``("num", Fraction, significant)`` (significant digits of a decimal, else 0), ``("var", name)``,
``("const", "pi" | "e" | "i" | "inf")``, ``("add" | "mul", a, b)``, ``("div", a, b)``,
``("neg", a)``, ``("pow", a, b)``, ``("fn", name, a, …)``, ``("pm" | "mp", a, b)``,
``("mat", ("row", a, …), …)``.

No text is ever evaluated as Python; depth and length are capped.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from alignkit_rewards.tokens import (
    DECORATION,
    NO_FACTOR,
    PLAIN_SUBSCRIPT,
    UnreadableError,
    mixed_numbers,
    tokens,
)

Tree = tuple[Any, ...]

MAX_LENGTH = 3000
MAX_DEPTH = 80


@lru_cache(maxsize=8192)
def parse(text: str) -> Tree:
    r"""Return the tree of one expression in canonical spelling; UnreadableError if it is none.

    >>> parse(r"2x^{2}")[1:]
    (('num', Fraction(2, 1), 0), ('pow', ('var', 'x'), ('num', Fraction(2, 1), 0)))
    """
    if len(text) > MAX_LENGTH:
        raise UnreadableError("too long")
    if "\\" not in text:
        text = PLAIN_SUBSCRIPT.sub(r"_{\1}", text)
    parser = _Parser(mixed_numbers(text))
    tree = parser.sum()
    parser.expect_end()
    return tree


class _Parser:
    """Recursive descent; each method reads one level of precedence."""

    def __init__(self, text: str) -> None:
        self.tokens = tokens(text)
        self.at = 0
        self.depth = 0
        self.bars = 0

    # -------------------------------------------------------------- reading tokens

    def peek(self, ahead: int = 0) -> tuple[str, str]:
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else ("end", "")

    def next(self) -> tuple[str, str]:
        token = self.peek()
        self.at += 1
        return token

    def accept(self, *values: str) -> str | None:
        kind, value = self.peek()
        if kind in {"sym", "cmd"} and value in values:
            self.at += 1
            return value
        return None

    def expect(self, value: str) -> None:
        if self.next() != ("sym", value):
            raise UnreadableError(f"expected {value!r}")

    def expect_end(self) -> None:
        if self.peek()[0] != "end":
            raise UnreadableError(f"unexpected {self.peek()[1]!r}")

    # -------------------------------------------------------------- precedence levels

    def sum(self) -> Tree:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableError("too deep")
        sign = self.accept("+", "-", "pm", "mp")
        left = self.product()
        if sign == "-":
            left = ("neg", left)
        elif sign in {"pm", "mp"}:
            left = (sign, ("num", Fraction(0), 0), left)
        while operator := self.accept("+", "-", "pm", "mp"):
            right = self.product()
            if operator == "-":
                left = ("add", left, ("neg", right))
            else:
                left = ("add" if operator == "+" else operator, left, right)
        self.depth -= 1
        return left

    def product(self) -> Tree:
        left = self.signed()
        while True:
            if self.accept("*", "cdot", "times"):
                left = ("mul", left, self.signed())
            elif self.accept("/", "div"):
                left = ("div", left, self.signed())
            elif self.accept("bmod", "mod"):
                left = ("fn", "mod", left, self.signed())
            elif self.starts_factor():
                left = ("mul", left, self.juxtaposed(left))
            else:
                return left

    def juxtaposed(self, left: Tree) -> Tree:
        if self.peek()[0] == "num" and self.tokens[self.at - 1][0] == "num":
            raise UnreadableError("two numbers side by side")
        return self.power()

    def signed(self) -> Tree:
        sign = self.accept("-", "+")
        if sign:
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise UnreadableError("too deep")
            value = self.signed()
            self.depth -= 1
            return ("neg", value) if sign == "-" else value
        return self.power()

    def power(self) -> Tree:
        base = self.postfix(self.atom())
        if self.accept("^"):
            base = ("pow", base, self.exponent())
            base = self.postfix(base)
        return base

    def exponent(self) -> Tree:
        if self.accept("{"):
            inner = self.sum()
            self.expect("}")
            return inner
        return self.signed()

    def postfix(self, value: Tree) -> Tree:
        while True:
            if self.peek() == ("sym", "^") and self.peek(1) == ("cmd", "circ"):
                self.at += 2  # a degree sign changes no number
            elif self.accept("!"):
                value = ("fn", "factorial", value)
            elif self.peek() == ("sym", "%"):
                self.at += 1
                value = ("div", value, ("num", Fraction(100), 0))
            else:
                return value

    def starts_factor(self) -> bool:
        kind, value = self.peek()
        if kind in {"num", "var"}:
            return True
        if kind == "cmd":
            return value not in NO_FACTOR
        return value in {"(", "[", "{"} or (value == "|" and not self.bars)

    # -------------------------------------------------------------- atoms

    def atom(self) -> Tree:
        kind, value = self.next()
        if kind == "num":
            return self.number(value)
        if kind == "var":
            return self.variable(value)
        if kind == "cmd":
            return self.command(value)
        closing = {"(": ")", "[": "]", "{": "}"}.get(value)
        if closing:
            bars, self.bars = self.bars, 0
            inner = self.sum()
            self.bars = bars
            self.expect(closing)
            return inner
        if value == "|":
            return self.absolute()
        raise UnreadableError(f"unexpected {value!r}")

    def absolute(self) -> Tree:
        self.bars += 1
        inner = self.sum()
        self.bars -= 1
        self.expect("|")
        return ("fn", "abs", inner)

    def number(self, text: str) -> Tree:
        if self.peek() == ("cmd", "overline") and "." in text:
            return self.repeating(text)
        if self.peek() == ("sym", "_") and text.isdigit():
            return self.in_base(text)
        if len(text) > 1000:
            raise UnreadableError("number too long")
        mantissa = re.split("[eE]", text)[0]
        significant = len(mantissa.replace(".", "").lstrip("0")) if "." in text else 0
        return ("num", Fraction(text.rstrip(".") or "0"), significant)

    def repeating(self, text: str) -> Tree:
        r"""Read ``0.1\overline{6}``."""
        self.next()
        digits = self.group_text()
        if not digits.isdigit() or len(digits) > 50:
            raise UnreadableError("overline")
        shift = len(text.partition(".")[2])
        tail = Fraction(int(digits), (10 ** len(digits) - 1) * 10**shift)
        return ("num", Fraction(text.rstrip(".")) + tail, 0)

    def in_base(self, text: str) -> Tree:
        self.next()
        base = self.group_text()
        if not base.isdigit() or not 2 <= int(base) <= 36:
            raise UnreadableError("number base")
        try:
            return ("num", Fraction(int(text, int(base))), 0)
        except ValueError as error:
            raise UnreadableError("number base") from error

    def variable(self, name: str) -> Tree:
        if self.peek() == ("sym", "_"):
            self.next()
            name += "_" + self.group_text()
        while self.accept("'"):
            name += "'"
        if name in {"e", "i"}:
            return ("const", name)
        return ("var", name)

    def group_text(self) -> str:
        """Read ``{…}`` or one token as a name."""
        kind, value = self.next()
        if value != "{" or kind != "sym":
            if kind in {"num", "var", "cmd"}:
                return value
            raise UnreadableError("subscript")
        depth, parts = 1, []
        while depth:
            kind, value = self.next()
            if kind == "end":
                raise UnreadableError("open brace")
            depth += {"{": 1, "}": -1}.get(value, 0) if kind == "sym" else 0
            if value not in {"{", "}"} and value not in DECORATION:
                parts.append(value)
        return "".join(parts)

    def command(self, name: str) -> Tree:
        from alignkit_rewards.commands import read_command

        return read_command(self, name)
