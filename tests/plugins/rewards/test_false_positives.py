"""No wrong answer is right: more than 50,000 pairs, drawn with a fixed seed."""

import json
import random
import re
from fractions import Fraction
from itertools import islice
from pathlib import Path

import pytest

from alignkit_rewards.answers import Conventions, judge

RULES = Conventions()
HERE = Path(__file__).parent
CHANGED = [
    line.partition(" ## ")[2]
    for line in (HERE / "changed_numbers.txt").read_text("utf-8").splitlines()
]
FRAMES = (
    "{}", "${}$", r"\boxed{{{}}}", "The answer is {}.", "So it is {}", "**Answer: {}**",
    "x = {}", "{} apples", "She has {} left.", r"\text{{The result is }} {}", "#### {}",
    "After 3 days there are {} of them.", "Final answer: {}", "= {}", "2 + 2 is 4, so {}",
    "It equals ${}$ exactly.", "First 1, then \\boxed{{{}}}", "{}, not 0", "{} of the 97531 people",
)  # fmt: skip
TEXT = {
    "names": "Priya Tom Noor Wednesday rhombus convergent blue east even Yes No True Q.E.D.",
    "scenes": "{a} and {b};{b} and {a};{a} or {b};not {a};{b}, not {a};{a}'s {b};the {b} of {a};"
    "{b} beats {a};{a} {b};{b} {a};all but {a};{b};It is {b}.;The answer is {b}.;"
    "neither {a} nor {b};{b} rather than {a};{a}, {b};{b}-{a};non{a};{b} is {a}'s",
    "units": "cm;m^2;km;inches;feet;square feet;miles;kg;grams;pounds;hours;minutes;days;liters;"
    "gallons;dollars;cents;miles per hour;dollars per day;degrees Celsius;degrees Fahrenheit;"
    "apples;pages per day;AM;PM;years ago;years from now;east;west",
}


def wrong_frames(draw):
    """Yield a number, and another in many surroundings."""
    while True:
        a, b = (_number(draw) for _ in range(2))
        if a != b and 100 * a != b and a != 100 * b:
            yield _spelled(a, draw), draw.choice(FRAMES).format(_spelled(b, draw))


def near_misses(draw):
    """Yield a number, and one that differs in its sign, a digit, a place or as an inverse."""
    while True:
        a = _number(draw)
        other = draw.choice((-a, a + 1, a - 1, 10 * a, a / 10, 2 * a, a * a, a + Fraction(1, 97)))
        if a != other:
            yield _spelled(a, draw), draw.choice(FRAMES).format(_spelled(other, draw))


def changed_numbers(draw):
    """Yield a number, and words around it that make it another answer."""
    while True:
        n, m = draw.randint(2, 9999), draw.randint(2, 9999)
        if n != m:
            said = draw.choice(CHANGED).replace("{n}", str(n)).replace("{m}", str(m))
            yield str(n), draw.choice(("{}", "So it is {}.", "<answer> {} </answer>")).format(said)


def other_words(draw):
    """Yield a name, and texts that name another one besides or instead."""
    names, scenes = TEXT["names"].split(), TEXT["scenes"].split(";")
    while True:
        a, b = draw.sample(names, 2)
        scene = draw.choice(scenes)
        answers = a in {"Yes", "No", "True"} and scene == "{a}, {b}"  # "Yes, Tom" says yes
        if {a, b} != {"Yes", "True"} and not answers:
            said = scene.replace("{a}", a).replace("{b}", b)
            yield draw.choice(("{}", "\\text{{{}}}")).format(a), said


def other_units(draw):
    """Yield a quantity, and the same number of another unit."""
    units = TEXT["units"].split(";")
    while True:
        a, b = draw.sample(units, 2)
        n = draw.randint(1, 12)
        yield f"{n} {a}", draw.choice(("{}", "It is {}.", "\\boxed{{{}}}")).format(f"{n} {b}")


def other_shapes(draw):
    """Yield a list, interval, time, ratio, equation or condition, and one that is not the same."""
    while True:
        a, b, c = draw.sample(range(1, 60), 3)
        low, high = sorted((a, b))
        hour = a % 12 + 1
        yield draw.choice((
            (f"({low},{high})", f"[{low},{high}]"), (f"[{low},{high})", f"({low},{high}]"),
            (f"({a},{b})", f"({b},{a})"), (f"{a}, {b}", f"{a}, {c}"), (f"{a}, {b}", f"{a}"),
            (f"{a}:{b + 60}", f"{b + 60}:{a}"), (f"x > {a}", f"{a}"), (f"x > {a}", f"x < {a}"),
            (f"x > {a}", rf"x \ge {a}"), (f"{a} = {c}p + q", f"{c}p + q"), (f"{a}", f"x > {a}"),
            (f"{low}<f(x)<{high}", f"{high}"), (f"{a}", f"{c + 1}x = {a}"), (f"{a}", f"{a}x"),
            (rf"(-\infty,{low})\cup({high},\infty)", f"x<{low} and x>{high}"),
            (f"{a}", f"{a} or {b}"), (rf"\{{{a},{b}\}}", rf"\{{{a},{c}\}}"), (f"{a}", f"{a}, {b}"),
            (f"{hour}:{b:02} AM", f"{hour}:{b:02} PM"), (f"x = {a}", f"y = {a}"),
            (f"{a}x + {b}", f"{b}x + {a}"), (rf"\sqrt{{{a + 1}}}", f"{a + 1}"),
            (f"{a}+{b}i", f"{a}-{b}i"), (f"{a}", f"\\pm {a}"), (f"{a}", f"{a + 1}^2"),
            (rf"{a}^\circ\text{{C}}", rf"{a}^\circ\text{{F}}"),
            (rf"\frac{{{a}}}{{{b}}}", f"{b}/{a}"),
            (f"{a:o}_8", f"{a:o}_9"), (f"{a}", rf"\boxed{{{a}}} or \boxed{{{b}}}"),
            (f"{a}", f"{a}\\text{{ or more}}"),
        ))  # fmt: skip


def _number(draw):
    return Fraction(draw.randint(-900, 9999), draw.choice((1, 1, 1, 2, 4, 5, 8, 20, 7)))


def _spelled(q, draw):
    sign, top, bottom = "-" * (q < 0), abs(q.numerator), q.denominator
    forms = [f"{sign}{top}/{bottom}", rf"{sign}\frac{{{top}}}{{{bottom}}}"]
    if bottom == 1:
        forms = [f"{sign}{top}", f"{sign}{top:,}", f"{sign}{top}.0"]
    elif 10**6 % bottom == 0:
        forms.append(f"{float(q)}")
    return draw.choice(forms)


def _plain(gold):
    """Return a gold without layout and marks of money, degrees and names, or its value."""
    bare = re.sub(r"\\(?:text|mbox)\{[^}]*\}|\\[,!dt$ ]|\^\\circ|^\w\s*=|[\s,{}$]", "", gold)
    found = re.fullmatch(r"(-?)(?:\\?frac(\d)(\d)|(-?[\d.]+))", bare)
    if found:
        value = Fraction(found[4] or Fraction(int(found[2]), int(found[3])))
        return -value if found[1] else value
    return bare


def other_golds(golds, draw):
    """Yield a gold, and another one as it is, in dollars, in a box or in a sentence."""
    frames = ("{}", "${}$", "\\boxed{{{}}}", "The answer is ${}$.")
    while True:
        gold, other = draw.sample(golds, 2)
        if _plain(gold) != _plain(other) and "_" not in gold + other:  # 52_8 is 42
            yield gold, draw.choice(frames).format(other)


def mutated_golds(golds, draw):
    """Yield a gold, and the gold with another digit at one place."""
    while True:
        gold = draw.choice(golds)
        if re.search(r"\d *\\frac", gold):
            continue  # 1\frac{9}{5} may be a product
        places = [m.start() for m in re.finditer(r"\d", gold)]
        if places:
            at = draw.choice(places)
            digit = draw.choice([d for d in "23456789" if d != gold[at]])
            yield gold, f"${gold[:at]}{digit}{gold[at + 1 :]}$"


DRAWN = {
    wrong_frames: 16_000, near_misses: 14_000, changed_numbers: 12_000, other_words: 3_000,
    other_units: 2_000, other_shapes: 6_000,
}  # fmt: skip
FIRST = {wrong_frames: 1_600, near_misses: 1_400, changed_numbers: 5_000}
"""How many of the slower kinds are tried where slow tests are not."""


def accepted(pairs):
    return [(gold, said) for gold, said in pairs if judge([gold], said, RULES).correct]


@pytest.mark.parametrize("kind", DRAWN, ids=lambda kind: kind.__name__)
def test_no_wrong_answer_is_right(kind):
    draw = random.Random(kind.__name__)
    assert accepted(islice(kind(draw), FIRST.get(kind, DRAWN[kind]))) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", FIRST, ids=lambda kind: kind.__name__)
def test_no_wrong_answer_is_right_among_all_that_are_drawn(kind):
    draw = random.Random(kind.__name__)
    assert accepted(islice(kind(draw), DRAWN[kind])) == []


def test_there_are_more_than_fifty_thousand_pairs():
    assert sum(DRAWN.values()) > 50_000
    for kind, count in DRAWN.items():
        pairs = list(islice(kind(random.Random(kind.__name__)), count))
        assert len(set(pairs)) > 0.15 * count


def _golds(path):
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return sorted({row["answer"].rpartition("####")[2].strip() for row in rows})


@pytest.mark.parametrize("kind", [other_golds, mutated_golds], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", ["math500", "gsm8k"])
def test_no_other_gold_is_right(kind, name, shared_data):
    golds = _golds(shared_data / name / "test.jsonl")
    assert accepted(islice(kind(golds, random.Random(name)), 5_000)) == []
