"""Answers in Chinese, Japanese, French, German and Spanish."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit_rewards.answers import Conventions, judge, quick
from alignkit_rewards.answers.text.languages import in_english

ALONE = [
    "答案是@", "答案是@。", "答案：@", "最终答案为@", "答えは@です", "答えは@です。", "答え：@",
    "@です",
    "La réponse est @.", "la réponse finale est @", "Réponse : @", "Die Antwort ist @.",
    "Die Lösung lautet @", "Antwort: @", "La respuesta es @.",
    "Respuesta: @", "El resultado es @",
    "@个", "@個", "@人", "@个苹果", "@元", "@円", r"\boxed{@个}", r"\boxed{@}です", "答案是 $@$",
    r"答案是\boxed{@}", "因为 3+4=7，所以答案是@", "@ años", "@ heures", "@ Stunden", "@ personas",
]  # fmt: skip
UNITS = [
    (r"@\text{ hours}", ["@小时", "@个小时", "@時間", "@ heures", "@ Stunden", "@ horas"]),
    (r"@\text{ minutes}", ["@分钟", "@分間", "@ Minuten", "@ minutos"]),
    (r"@\text{ km}", ["@公里", "@千米", "@ kilomètres"]),
    (r"@\text{ m}", ["@米", "@メートル", "@ mètres", "@ metros"]),
    (r"@\text{ kg}", ["@公斤", "@千克", "@ Kilogramm"]),
    (r"@\text{ years}", ["@年", "@ ans", "@ Jahre", "@ años"]),
    (r"@\text{ months}", ["@个月", "@ヶ月", "@ mois", "@ meses"]),
]
PAIRS = ["@和#", "@与#", "@、#", "@或#", "@または#", "@ ou #", "@ et #", "@ oder #", "@ und #",
         "@ y #", "@ o #"]  # fmt: skip


def correct(gold, answer):
    rules = Conventions()
    return (quick([gold], answer, rules) or judge([gold], answer, rules)).correct


def chinese(number):
    """Return the numeral of a number below 10,000."""
    digits, out, gap = "零一二三四五六七八九", "", False
    for scale, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // scale % 10
        if digit:
            out += ("零" if gap and out else "") + digits[digit] + name
        gap = not digit
    return out.removeprefix("一") if 10 <= number < 20 else out


@settings(max_examples=30)
@given(st.integers(1, 999), st.integers(1, 99))
def test_an_answer_in_another_language(number, more):
    for template in ALONE:
        answer = template.replace("@", str(number))
        assert correct(str(number), answer), answer
        assert not correct(str(number + more), answer), answer


@pytest.mark.parametrize(("gold", "spellings"), UNITS)
@settings(max_examples=10)
@given(number=st.integers(2, 99))
def test_units(gold, spellings, number):
    others = [other for other, _ in UNITS if other != gold]
    for spelling in spellings:
        answer = spelling.replace("@", str(number))
        assert correct(gold.replace("@", str(number)), answer), answer
        assert not correct(gold.replace("@", str(number + 1)), answer), answer
        for other in others:
            assert not correct(other.replace("@", str(number)), answer), (other, answer)


@settings(max_examples=20)
@given(st.integers(1, 99), st.integers(1, 99))
def test_two_answers(first, more):
    second = first + more
    for pair in PAIRS:
        answer = pair.replace("@", str(first)).replace("#", str(second))
        assert correct(f"{first}, {second}", answer), answer
        assert not correct(f"{first}, {second + 1}", answer), answer
        assert not correct(str(first), answer), answer
        assert not correct(str(second), answer), answer


@given(st.integers(1, 9999))
def test_chinese_numerals(number):
    said = chinese(number)
    assert in_english(said) == str(number)
    assert correct(str(number), f"答案是{said}。")
    assert correct(str(number), said + "个")
    assert not correct(str(number + 1), said)


@pytest.mark.parametrize(
    ("gold", "answer", "other"),
    [
        (r"\frac{2}{3}", "三分之二", r"\frac{3}{2}"),
        ("2.5", "二点五", "25"),
        ("-5", "负五", "5"),
        ("50\\%", "百分之五十", "5"),
        ("50000", "5万", "5"),
        ("35000", "3.5万", "3.5"),
        ("2024", "二〇二四", "2025"),
        ("5", "５", "6"),
        ("12", "答案是１２", "21"),
        ("yes", "是", "no"),
        ("no", "否", "yes"),
        (r"\text{Yes}", "oui", r"\text{No}"),
        (r"\text{No}", "Nein", r"\text{Yes}"),
        ("yes", "はい", "no"),
        ("yes", "sí", "no"),
        (r"\text{no solution}", "无解", "0"),
        ("3.5", "Die Antwort ist 3,5", "35"),
        ("3.5", "3,5 Stunden", "35"),
        ("1234.56", "1.234,56", "1.23456"),
        ("5.5", "la réponse est 5,5", "55"),
    ],
)
def test_words_and_decimals(gold, answer, other):
    assert correct(gold, answer)
    assert not correct(other, answer)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("答案不是5", "not 5"),
        ("至少5", "at least 5"),
        ("5以上", "at least 5"),
        ("la réponse est au moins 5", "at least 5"),
        ("Die Antwort ist nicht 5", "not 5"),
        ("menos de 5 años", "less than 5 años"),
    ],
)
def test_what_changes_a_number_is_kept(answer, said):
    assert in_english(answer) == said


@pytest.mark.parametrize("text", ["5 or 6", "2y", "x + y", "5 km", "no", "1,234", "(1,2)", "on 5"])
def test_english_stays(text):
    assert in_english(text) == text
