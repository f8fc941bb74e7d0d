"""Bold, colour, size and marks around an answer change no verdict."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit_rewards.answers import Conventions, judge
from alignkit_rewards.answers.text.styling import unstyled

STYLES = [
    r"\mathbf{@}", r"\textbf{@}", r"\boldsymbol{@}", r"\bm{@}", r"\mathit{@}", r"\textit{@}",
    r"\emph{@}", r"\mathsf{@}", r"\mathtt{@}", r"\texttt{@}", r"\color{red}{@}", r"\color{red} @",
    r"\textcolor{red}{@}", r"\textcolor[rgb]{1,0,0}{@}", r"{\color{blue}@}", r"\gray{@}",
    r"\blueD{@}", r"\colorbox{yellow}{@}", r"\bbox[yellow]{@}", r"\underline{\underline{@}}",
    r"\displaystyle @", r"{\large @}", r"\Large{@}", r"\Huge @", r"{\bf @}", r"\fbox{@}",
    r"\boxed{\mathbf{@}}", r"$$\boxed{\textbf{@}}$$", r"$\mathbf{@}$", r"\therefore @",
    r"\phantom{0}@", r"\hspace{1cm}@", "<b>@</b>", "<STRONG>@</STRONG>", "<u><i>@</i></u>",
    '<span style="color: red">@</span>', "<font color=red>@</font>", "<p>@</p>", "@<br/>",
    "&nbsp;@", "**@**", "*@*", "***@***", "__@__", "_@_", "`@`", "```\n@\n```", "### @",
    "The answer is **@**.", "The answer is <b>@</b>.", "**Answer:** @", r"\textbf{Answer: }@",
    "@\\", r"@\\", r"@\ ", r"$@\\$", r"\(@\\\)", r"\,@\,",
]  # fmt: skip
VALUES = [
    ("{}", st.integers(-999, 999)),
    ("{}.5", st.integers(1, 999)),
    (r"\frac{{{}}}{{1009}}", st.integers(1, 999)),
    (r"{}\sqrt{{7}}", st.integers(2, 99)),
    ("(3,{})", st.integers(4, 99)),
    (r"\{{-1,{}\}}", st.integers(4, 99)),
    ("[0,{})", st.integers(4, 99)),
    ("x^2+{}", st.integers(1, 99)),
    (r"{}\%", st.integers(101, 999)),
    (r"{} \text{{ cm}}", st.integers(2, 99)),
]


def correct(gold, answer):
    return judge([gold], answer, Conventions()).correct


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("value", VALUES, ids=[v[0] for v in VALUES])
def test_a_style_changes_no_verdict(style, value):
    template, numbers = value

    @settings(max_examples=8)
    @given(numbers, st.integers(1, 50))
    def holds(number, more):
        plain, other = template.format(number), template.format(number + more)
        assert correct(plain, style.replace("@", plain))
        assert not correct(other, style.replace("@", plain))

    holds()


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("42", r"\mathbf{4}\mathbf{2}"),
        (r"\frac{3}{8}", r"\frac{\mathbf{3}}{\textbf{8}}"),
        ("2^{10}", r"2^\mathbf{10}"),
        ("2^{10}", "2<sup>10</sup>"),
        ("x_1", "x<sub>1</sub>"),
        (r"3\pi r", r"3\mathbf{\pi}r"),
        (r"7\pi", "7&pi;"),
        (r"\frac{1}{2}", "&frac12;"),
        ("x<3", "x &lt; 3"),
        (r"5\text{ cm}", "**5** cm"),
        (r"\text{José}", "Jose\u0301"),
        (r"\text{(C)}", r"\textbf{(C)}"),
        (r"\text{Evelyn}", r"\textbf{Evelyn}"),
        (r"\mathbb{R}", r"\mathbf{R}"),
    ],
)
def test_styles_inside_an_answer(gold, answer):
    assert correct(gold, answer)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("8", r"\mathbf{4}2"),  # shown as 42
        ("210", "2<sup>10</sup>"),
        ("a<b>c", "a<c>b"),
        ("x", "**y**"),
        (r"[0,1]\strut\oops", "[0,1)"),  # a formula that cannot be read is not words
    ],
)
def test_what_a_style_must_not_hide(gold, answer):
    assert not correct(gold, answer)


@pytest.mark.parametrize("text", ["2*3*4", "a*b + c*d", "x_1 + x_2", "a<b>c", "x < 3", r"\{1,2\}"])
def test_mathematics_that_looks_like_a_style_is_kept(text):
    assert unstyled(text) == text
