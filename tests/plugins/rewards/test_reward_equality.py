"""Which answers equal which golds: written examples, and properties that no pair may break."""

import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import alignkit
import alignkit_rewards
from alignkit_rewards.answers import Conventions, judge

RULES = Conventions()
HERE = Path(__file__).parent


def pairs(name):
    for line in (HERE / name).read_text("utf-8").splitlines():
        gold, _, answer = (line + " ").partition(" ## ")
        yield gold, answer.strip()


def right(gold, answer, **rules):
    return judge([gold], answer, Conventions(**rules)).correct


@pytest.mark.parametrize(("gold", "answer"), [*pairs("right_answers.txt")])
def test_right_answers_in_many_spellings(gold, answer):
    assert right(gold, answer)


@pytest.mark.parametrize(("gold", "answer"), [*pairs("wrong_answers.txt")])
def test_wrong_answers_stay_wrong(gold, answer):
    assert not right(gold, answer)


@pytest.mark.parametrize(
    ("rules", "gold", "answer", "expected"),
    [
        ({"percent": "sign"}, "50", r"50\%", True),
        ({"percent": "sign"}, "1/2", r"50\%", False),
        ({"percent": "value"}, "50", r"50\%", False),
        ({"percent": "value"}, "1/2", r"50\%", True),
        ({"percent": "either"}, "50", r"50\%", True),
        ({"percent": "either"}, "1/2", r"50\%", True),
        ({"rounding": 6}, "2/3", "0.666667", True),
        ({"rounding": 6}, "2/3", "0.66667", False),  # five digits
        ({"rounding": 6}, "2/3", "0.666666", False),  # cut, not rounded
        ({"rounding": 0}, "2/3", "0.666667", False),
        ({"rounding": 4}, r"\sqrt{51}", "7.141", True),
        ({"list_order": "free"}, "1, 2", "2, 1", True),
        ({"list_order": "kept"}, "1, 2", "2, 1", False),
        ({"list_order": "kept"}, r"\{1, 2\}", r"\{2, 1\}", True),  # a set has no order
        ({"list_order": "free"}, "(1, 2)", "(2, 1)", False),
        ({"unsimplified": True}, "649", "3245/5", True),
        ({"unsimplified": False}, "649", "3245/5", False),
        ({"unsimplified": False}, "4/23", "8/46", False),
        ({"unsimplified": False}, "4/23", r"\frac{4}{23}", True),
        ({"unsimplified": False}, "9/5", r"1\frac{4}{5}", True),
        ({"unsimplified": False}, "8", "2^3", False),
        ({"decimal_comma": False}, "1.22", "1,22", False),
        ({"decimal_comma": True}, "1.22", "1,22", True),
        ({"decimal_comma": True}, "1220", "1,220", True),
    ],
)
def test_conventions_are_options(rules, gold, answer, expected):
    assert right(gold, answer, **rules) is expected


def test_any_of_several_golds_will_do():
    assert judge(["1/2", "3"], "x = 3", RULES).correct
    assert not judge(["1/2", "3"], "4", RULES).correct


def test_answers_are_judged_without_alignkit():
    """The package needs its own folder and the finder of boxes: neither alignkit nor pydantic."""
    code = """
import sys, types
for name, folder in zip(("alignkit", "alignkit_rewards"), sys.argv[1:]):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from alignkit_rewards.answers import Conventions, judge
assert judge([r"\\boxed{1/2}"], "so it is 0.5", Conventions()).correct
print(*{name.partition(".")[0] for name in sys.modules})
"""
    folders = [str(Path(m.__file__).parent) for m in (alignkit, alignkit_rewards)]
    done = subprocess.run(
        [sys.executable, "-c", code, *folders], capture_output=True, text=True, check=True
    )
    assert "mpmath" in done.stdout.split()
    assert not {"pydantic", "pluggy", "torch", "sympy"} & {*done.stdout.split()}


def test_a_solution_is_a_gold():
    assert right("2+2 = <<2+2=4>>4 clips.\n#### 1,204", "1204 clips")
    assert right(r"First $3$, then $\boxed{\frac{1}{2}}$ follows.", "0.5")


# ---------------------------------------------------------------- properties

rationals = st.fractions(min_value=-1000, max_value=1000, max_denominator=500)


def spellings(q):
    top, bottom = q.numerator, q.denominator
    sign = "-" if q < 0 else ""
    yield f"{top}/{bottom}"
    yield rf"{sign}\frac{{{abs(top)}}}{{{bottom}}}"
    if bottom != 1 and abs(top) > bottom:
        whole, rest = divmod(abs(top), bottom)
        yield rf"{sign}{whole}\frac{{{rest}}}{{{bottom}}}"
    if 10**6 % bottom == 0:
        yield str(float(q))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(a=rationals, b=rationals, data=st.data())
def test_rationals_are_equal_when_they_are(a, b, data):
    left = data.draw(st.sampled_from(list(spellings(a))))
    right_ = data.draw(st.sampled_from(list(spellings(b))))
    assert right(left, right_, rounding=0) is (a == b)
    assert right(left, data.draw(st.sampled_from(list(spellings(a)))))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(a=rationals, digits=st.integers(1, 40))
def test_a_rational_never_equals_its_neighbour(a, digits):
    """A difference of 10^-digits is seen, however small."""
    other = a + Fraction(1, 10**digits)
    plain = f"{other.numerator}/{other.denominator}"
    assert not right(f"{a.numerator}/{a.denominator}", plain)
    assert not right(f"{a.numerator}/{a.denominator} + x", plain + " + x")


@pytest.mark.slow
@settings(max_examples=5000, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["rational", "polynomial", "tuple"]),
    pair=st.tuples(
        st.lists(st.integers(-60, 60), min_size=3, max_size=3),
        st.lists(st.integers(-60, 60), min_size=3, max_size=3),
    ).filter(lambda pair: pair[0] != pair[1]),
)
def test_five_thousand_unequal_pairs_are_never_equal(kind, pair):
    def spelled(numbers):
        if kind == "rational":
            q = Fraction(numbers[0] * 60 + numbers[1], abs(numbers[2]) + 1)
            return q, f"{q.numerator}/{q.denominator}"
        if kind == "polynomial":
            return tuple(numbers), polynomial(numbers)
        return tuple(numbers), f"({numbers[0]}, {numbers[1]}, {numbers[2]})"

    (a, left), (b, right_) = map(spelled, pair)
    assert right(left, right_) is (a == b)


coefficients = st.lists(st.integers(-9, 9), min_size=1, max_size=5)


def polynomial(c, descending=True):
    terms = [f"{a:+d}x^{{{i}}}" if i else f"{a:+d}" for i, a in enumerate(c) if a] or ["0"]
    return "".join(reversed(terms) if descending else terms).lstrip("+")


@settings(max_examples=250, deadline=None, derandomize=True)
@given(a=coefficients, b=coefficients)
def test_polynomials_are_equal_when_their_coefficients_are(a, b):
    def trimmed(c):
        return [*c] if any(c) and c[-1] else trimmed(c[:-1]) if c else []

    same = trimmed(a) == trimmed(b)
    assert right(polynomial(a), polynomial(b)) is same
    assert right(polynomial(a), polynomial(a, descending=False))
    shifted = f"{polynomial(b)} + 10^{{-40}}"
    assert not right(polynomial(b), shifted)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    a=st.lists(st.integers(-20, 20), min_size=2, max_size=4),
    b=st.lists(st.integers(-20, 20), min_size=2, max_size=4),
)
def test_tuples_keep_their_order_and_lists_do_not(a, b):
    def bracketed(items):
        return f"({', '.join(map(str, items))})"

    assert right(bracketed(a), bracketed(b)) is (a == b)
    assert right(", ".join(map(str, a)), ", ".join(map(str, a[::-1])))
    if sorted(a) != sorted(b) and set(a) != set(b):
        assert not right(", ".join(map(str, a)), ", ".join(map(str, b)))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(text=st.text(max_size=80))
def test_no_text_raises_in_the_judge(text):
    judge(["4"], text, RULES)
    judge([text], text, RULES)
    judge([text], "4", RULES)
    assert not text.strip() or judge([text.strip()], "a different thing", RULES).correct in {
        True, False,
    }  # fmt: skip


alphabet = st.sampled_from(
    [*r"\{}()[]$^_,.=<>|!%&*/+-: 0123456789xyei", r"\frac", r"\sqrt", r"\boxed{", r"\text{",
     r"\begin{pmatrix}", r"\end{pmatrix}", r"\cup", r"\le", r"\pm", " and ", " or ", r"\log_",
     "answer is ", "####", "**", r"\\", r"\infty"]
)  # fmt: skip


@settings(max_examples=250, deadline=None, derandomize=True)
@given(pieces=st.lists(alphabet, max_size=25))
def test_no_mathematical_rubble_raises_in_the_judge(pieces):
    text = "".join(pieces)
    judge(["x^2 + 1"], text, RULES)
    judge([text], "4", RULES)


PILES = [
    "1", "a", "ab ", "1 ", "$1$", "\\", r"\frac", "{", "(", "[", "^", "_", "=", r"\text{a} ", "1,",
    ". A", "**", "answer is ", r"\boxed{1} ", r"\cup", "%", "\n", "|", "-", "x_", "1.", "½", "√",
    "<answer>", "</answer>", "<|a|>", r"\begin{pmatrix}", r"\\", "1 cm ", "(1,", "or about ",
    "(A) ",
]  # fmt: skip


@pytest.mark.parametrize("piece", PILES)
def test_long_piles_are_read_in_linear_time(piece):
    """4,000 characters take some 10 ms of one core; a quadratic pattern takes seconds."""
    pile = (piece * 4000)[:4000]
    started = time.process_time()
    for text in (pile, "x 1 " + pile, pile + " y 2"):
        judge(["4"], text, RULES)
    assert time.process_time() - started < 1.0
