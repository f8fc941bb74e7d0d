r"""A parser of mathematics in LaTeX or plain text: sums, products, powers, brackets, numbers.

No text is ever evaluated as Python; depth and length are capped.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

from alignkit_rewards.answers.algebra.tokens import (
    DECORATION,
    NO_FACTOR,
    UnreadableError,
    mixed_numbers,
    tokens,
)
from alignkit_rewards.answers.algebra.trees import Tree

MAX_DEPTH = 80
_DEGREE: Tree = ("div", ("const", "pi"), ("num", Fraction(180), 0))
_EXPONENT = re.compile("[eE]")


class Parser:
    """Recursive descent; each method reads one level of precedence.

    ``commands`` reads what follows a command or a known name, such as ``\\frac`` or ``sin``.
    """

    def __init__(self, text: str, commands: Callable[[Parser, str], Tree]) -> None:
        self.tokens = tokens(mixed_numbers(text))
        self.at = 0
        self._commands = commands
        self._depth = 0
        self._bars = 0
        self.angles = False
        """Whether the parser is inside the argument of a trigonometric function."""

    def expression(self) -> Tree:
        """Parse the whole text."""
        tree = self.sum()
        if self.peek()[0] != "end":
            raise UnreadableError(f"unexpected {self.peek()[1]!r}")
        return tree

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

    # -------------------------------------------------------------- precedence levels

    def sum(self) -> Tree:
        self._descend()
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
        self._depth -= 1
        return left

    def _descend(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnreadableError("too deep")

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
                if self.peek()[0] == "num" and self.tokens[self.at - 1][0] == "num":
                    raise UnreadableError("two numbers side by side")
                left = ("mul", left, self.power())
            else:
                return left

    def signed(self) -> Tree:
        sign = self.accept("-", "+")
        if not sign:
            return self.power()
        self._descend()
        value = self.signed()
        self._depth -= 1
        return ("neg", value) if sign == "-" else value

    def power(self) -> Tree:
        base = self.postfix(self.atom())
        if self.accept("^"):
            base = self.postfix(("pow", base, self.exponent()))
        return base

    def exponent(self) -> Tree:
        return self.bracketed("}") if self.accept("{") else self.signed()

    def postfix(self, value: Tree) -> Tree:
        while True:
            if self.peek() == ("sym", "^") and self.peek(1) == ("cmd", "circ"):
                self.at += 2  # outside trigonometric functions, a degree sign has no effect
                value = ("mul", value, _DEGREE) if self.angles else value
            elif self.accept("!"):
                value = ("fn", "factorial", value)
            elif self.accept("%"):
                value = ("div", value, ("num", Fraction(100), 0))
            else:
                return value

    def starts_factor(self) -> bool:
        kind, value = self.peek()
        if kind == "cmd":
            return value not in NO_FACTOR
        opens = value in {"(", "[", "{"} or (value == "|" and not self._bars)
        return opens or kind in {"num", "var"}

    # -------------------------------------------------------------- atoms

    def atom(self) -> Tree:
        kind, value = self.next()
        if kind == "num":
            return self.number(value)
        if kind == "var":
            return self.variable(value)
        if kind == "cmd":
            return self._commands(self, value)
        if closing := {"(": ")", "[": "]", "{": "}"}.get(value):
            return self.bracketed(closing)
        if value == "|":
            return self._absolute()
        raise UnreadableError(f"unexpected {value!r}")

    def bracketed(self, closing: str) -> Tree:
        """Read a sum up to its closing bracket; bars that were opened outside do not end it."""
        return self.listed(closing, separators=False)[0]

    def listed(self, closing: str, *, separators: bool = True) -> list[Tree]:
        """Read sums with commas between them, up to the closing bracket."""
        bars, self._bars = self._bars, 0
        found = [self.sum()]
        while separators and self.accept(","):
            found.append(self.sum())
        self._bars = bars
        self.expect(closing)
        return found

    def _absolute(self) -> Tree:
        self._bars += 1
        inner = self.sum()
        self._bars -= 1
        self.expect("|")
        return ("fn", "abs", inner)

    def number(self, text: str) -> Tree:
        if self.peek() == ("cmd", "overline") and "." in text:
            return self._repeating(text)
        if self.peek() == ("sym", "_") and text.isdigit():
            return self._in_base(text)
        if len(text) > 1000:
            raise UnreadableError("number too long")
        mantissa = _EXPONENT.split(text)[0]
        significant = len(mantissa.replace(".", "").lstrip("0")) if "." in text else 0
        return ("num", Fraction(text.rstrip(".") or "0"), significant)

    def _repeating(self, text: str) -> Tree:
        r"""Read ``0.1\overline{6}``."""
        self.next()
        digits = self.group_text()
        if not digits.isdigit() or len(digits) > 50:
            raise UnreadableError("overline")
        shift = len(text.partition(".")[2])
        tail = Fraction(int(digits), (10 ** len(digits) - 1) * 10**shift)
        return ("num", Fraction(text.rstrip(".")) + tail, 0)

    def _in_base(self, text: str) -> Tree:
        self.next()
        base = self.group_text()
        if base.isdigit() and 2 <= int(base) <= 36 and int(max(text)) < int(base):
            return ("num", Fraction(int(text, int(base))), 0)
        raise UnreadableError("number base")

    def variable(self, name: str) -> Tree:
        if self.accept("_"):
            name += "_" + self.group_text()
        while self.accept("'"):
            name += "'"
        return ("const" if name in {"e", "i"} else "var", name)

    def group_text(self) -> str:
        """Read ``{…}`` or one token as a name."""
        kind, value = self.next()
        if (kind, value) != ("sym", "{"):
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
