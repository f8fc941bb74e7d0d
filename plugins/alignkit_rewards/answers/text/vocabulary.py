"""Words that belong to mathematics rather than to prose: function names and Greek letters."""

from __future__ import annotations


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


GREEK = word_set(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi "
    "rho varrho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma "
    "Upsilon Phi Psi Omega ell hbar"
)
FUNCTIONS = word_set(
    "sin cos tan sec csc cosec cot arcsin arccos arctan arcsec arccsc arccot asin acos atan sinh "
    "cosh tanh sech csch coth arcsinh arccosh arctanh asinh acosh atanh ln log lg exp sqrt cbrt "
    "abs floor ceil sgn sign gcd lcm max min det binomial factorial"
)
