"""Translate answers in Chinese, Japanese, French, German and Spanish into English and digits.

Only short forms with a certain meaning are translated: phrases that introduce an answer, yes and
no, "and" and "or" between numbers, counters and units after a number, Chinese numerals.
"""

from __future__ import annotations

import re
from fractions import Fraction
from types import MappingProxyType

from alignkit.text.boxes import outermost

MAX_LENGTH = 400
"""In longer texts, only phrases that introduce an answer are translated."""

_INTRODUCTIONS = re.compile(
    r"(?:(?:最终|最后|正确)?(?:的)?答案(?:是|为|為)?|(?:最終)?(?:的な)?(?:答え|解答|回答)(?:は|が)?"
    r"|结果(?:是|为)|結果は"
    r"|\b(?:la|votre)\s+r[ée]ponse\s+(?:finale\s+|correcte\s+)?est|\bla\s+solution\s+est"
    r"|\ble\s+r[ée]sultat\s+est"
    r"|\bdie\s+(?:richtige\s+|endg[üu]ltige\s+)?(?:antwort|l[öo]sung)\s+(?:ist|lautet)"
    r"|\bdas\s+ergebnis\s+(?:ist|lautet)"
    r"|\bla\s+(?:respuesta|soluci[óo]n)\s+(?:final\s+|correcta\s+)?es|\bel\s+resultado\s+es"
    r"|\b(?:r[ée]ponse|antwort|ergebnis|respuesta)(?=\s*[:：]))\s*[:：]?\s*",
    re.I,
)
_JAPANESE_END = re.compile(r"(?:です|である|だ|となります|になります)$")
_COMMA_DECIMAL = re.compile(r"(?<![\d.,])(-?\d+),(\d{1,2}|\d{4,})(?![\d.,])")
_WORDS = MappingProxyType(
    {
        "yes": "是 是的 对 對 正确 はい 正しい oui ja sí si vrai wahr richtig verdadero cierto",
        "no": "否 不是 错 错误 不对 いいえ non nein faux falsch falso",
    }
)
_ANSWERS = {word: english for english, words in _WORDS.items() for word in words.split()}
_NONE = frozenset({
    "无解", "無解", "解なし", "pas de solution", "aucune solution", "keine lösung",
    "sin solución", "no hay solución", "no tiene solución",
})  # fmt: skip
_BETWEEN = re.compile(
    r"(?<=[\d)\]}$])\s*(?:(?P<and>[和与與及と]|、|\bet\b|\bund\b|\by\b)|(?P<or>或者?|または|\bou\b"
    r"|\boder\b|\bo\b))\s*(?=-?[\d(\[{$\\])"
)
_UNITS = MappingProxyType(
    {
        "": "个 個 人 只 支 本 张 張 枚 条 次 位 名 件 辆 輛 台 颗 棵 朵 块 塊 つ 匹 冊 回 歳 岁 "
        "種 种 personnes élèves livres pommes äpfel personen schüler bücher manzanas personas "
        "libros",
        "yuan": "元 人民币",
        "yen": "円 日元",
        "dollars": "美元 ドル dólares",
        "euros": "欧元 ユーロ",
        "meters": "米 メートル mètres mètre metros metro",
        "kilometers": "千米 公里 キロメートル kilomètres kilómetros",
        "centimeters": "厘米 センチメートル センチ centimètres centímetros zentimeter",
        "kilograms": "千克 公斤 キログラム kilogrammes kilogramm kilogramos",
        "grams": "克 グラム grammes gramm gramos",
        "hours": "小时 小時 个小时 個小時 時間 heures heure stunden stunde horas hora",
        "minutes": "分钟 分鐘 分間 minuten minutos minuto",
        "seconds": "秒 秒間 secondes sekunden segundos",
        "days": "天 日間 jours jour tage tag días día",
        "weeks": "周 週間 semaines wochen semanas",
        "months": "个月 個月 ヶ月 か月 mois monate meses",
        "years": "年 年間 ans années jahre jahr años año",
        "%": "パーセント prozent",
    }
)
_NAMES = {word: unit for unit, words in _UNITS.items() for word in words.split()}
_LATIN = [w for w in _NAMES if re.match(r"[A-Za-zäáéèñ]", w)]
_UNIT = "|".join(sorted(map(re.escape, _NAMES), key=len, reverse=True))
_COUNTED = re.compile(
    r"(?P<number>-?(?:\\frac\{\d+\}\{\d+\}|\d[\d.,]*(?:/\d+)?))\s*"
    rf"(?:(?P<unit>{_UNIT})|[个個][\u4e00-\u9fff]{{1,4}}(?<!半)(?<!多))",
    re.I,
)
_QUALIFIED = MappingProxyType(
    {
        "not ": "不是 并非 並非 不等于 pas nicht",
        "at least ": "至少 最少 不少于 mindestens wenigstens",
        "at most ": "至多 最多 不超过 höchstens",
        "more than ": "大于 多于 超过",
        "less than ": "小于 少于 不到",
        "about ": "大约 大約 约 約 およそ environ etwa ungefähr aproximadamente",
    }
)
_QUALIFIERS = {
    **{word: new for new, words in _QUALIFIED.items() for word in words.split()},
    **dict.fromkeys(("au moins", "al menos", "por lo menos"), "at least "),
    **dict.fromkeys(("au plus", "como máximo"), "at most "),
    **dict.fromkeys(("plus de", "mehr als", "más de"), "more than "),
    **dict.fromkeys(("moins de", "weniger als", "menos de"), "less than "),
}
_QUALIFIER = re.compile(
    "(" + "|".join(sorted(_QUALIFIERS, key=len, reverse=True)) + r")\s*(?=-?\d)", re.I
)
_BEHIND = re.compile(
    r"(?<![\d.,])(-?\d[\d.,]*+)\s*+(以上|以下|未満|より大きい|より小さい|ではない|ではありません)"
)
_FROM_BEHIND = {
    "以上": "at least", "以下": "at most", "未満": "less than", "より大きい": "more than",
    "より小さい": "less than", "ではない": "not", "ではありません": "not",
}  # fmt: skip
_DIGITS = {c: n for n, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "兩": 2}
_SCALES = {"十": 10, "百": 100, "千": 1000}
_MYRIADS = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
_SCALED = re.compile(r"(?<![\d.,])(\d{1,9}(?:\.\d{1,9})?)\s*([万萬亿億千百])(?![克米])")
_HAN = "零〇一二三四五六七八九十百千万萬亿億两兩"
_CHINESE = re.compile(
    rf"(?P<sign>[负負])?(?:百分之(?P<percent>[{_HAN}]+)|(?P<whole>[{_HAN}]+?)"
    rf"(?:分之(?P<top>[{_HAN}]+)|点(?P<places>[零〇一二三四五六七八九]+))?)(?P<unit>{_UNIT})?"
)
_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3}(?:\.\d{3})+),(\d+)(?![\d.,])")
_SIGNS = [
    "réponse", "reponse", "antwort", "lösung", "losung", "ergebnis", "respuesta", "solución",
    "solucion", "résultat", "resultat", "resultado", "oui", "non", "ja", "nein", "sí", "si",
    "vrai", "faux", "wahr", "falsch", "richtig", "verdadero", "falso", "cierto", "la solution",
    "keine", "pas de", "aucune", "sin soluci", "no hay", "no tiene",
]  # fmt: skip
_AFTER_DIGIT = [*_LATIN, "ou", "et", "oder", "und", "y", "o"]
_FOREIGN = re.compile(
    rf"[\u3040-\u30ff\u4e00-\u9fff]|\b(?:{'|'.join(_SIGNS)})\b"
    rf"|\d\s*(?:{'|'.join(_AFTER_DIGIT)})\b|\d\.\d{{3}},\d",
    re.I,
)
_GROUPED = re.compile(r"\d\.\d{3},\d")
_ASCII_WORD = re.compile("[a-z]+")
_ASCII_SIGNS = frozenset(sign.split()[0] for sign in (*_SIGNS, *_AFTER_DIGIT))
"""First words of the phrases that identify another language."""
_BEGINS_LATIN = re.compile(r"\w*[A-Za-z]")


def in_english(text: str) -> str:
    """Return an answer in another language in English and digits; other texts are unchanged.

    >>> [in_english(t) for t in ("答案是5个。", "二十五", "1 ou 2", "Die Antwort ist 3,5", "oui")]
    ['5', '25', '1 or 2', '3.5', 'yes']
    """
    if not _may_be_foreign(text[-MAX_LENGTH:]):
        return text
    if boxes := outermost(text):
        inner = boxes[-1].content
        return "\\boxed{" + in_english(inner) + "}" if in_english(inner) != inner else text
    introduced = list(_INTRODUCTIONS.finditer(text))
    said = text[introduced[-1].end() :] if introduced else text
    if len(said) > MAX_LENGTH or not said.strip(" .。"):
        return text
    latin = bool(introduced) and bool(_BEGINS_LATIN.match(introduced[-1][0]))
    bare = _JAPANESE_END.sub("", said.rstrip().rstrip("。.").rstrip())
    bare = bare.rstrip().strip(" .。!！")
    new = _phrase(bare, latin=latin)
    return new if introduced or new != said.strip(" .。!！") else text


def _may_be_foreign(text: str) -> bool:
    """Return whether a text may be in another language; ASCII is first checked for its words."""
    if text.isascii() and _ASCII_SIGNS.isdisjoint(_ASCII_WORD.findall(text.lower())):
        return "," in text and bool(_GROUPED.search(text))
    return bool(_FOREIGN.search(text))


def _phrase(text: str, *, latin: bool) -> str:
    """Translate a short answer without an introduction into English."""
    word = text.lower().strip(" *$")
    if word in _ANSWERS or word in _NONE:
        return _ANSWERS.get(word, "no solution")
    if (numeral := _chinese(word)) is not None:
        return numeral
    text = _THOUSANDS.sub(lambda m: f"{m[1].replace('.', '')}.{m[2]}", text)
    text = _SCALED.sub(_multiplied, text)
    text = _BETWEEN.sub(lambda m: " or " if m["or"] else " and ", text)
    text = _QUALIFIER.sub(lambda m: _QUALIFIERS[m[1].lower()], text)
    text = _BEHIND.sub(lambda m: f"{_FROM_BEHIND[m[2]]} {m[1]}", text)
    found = _COUNTED.fullmatch(text)
    if found is None:
        return _decimal(text) if latin else text
    name = (found["unit"] or "").lower()
    number = _decimal(found["number"]) if latin or (name.isascii() and name) else found["number"]
    return f"{number} {_NAMES.get(name, '')}".strip()


def _decimal(text: str) -> str:
    return _COMMA_DECIMAL.sub(r"\1.\2", text)


def _multiplied(found: re.Match[str]) -> str:
    """Write ``3.5万`` as 35000."""
    return str(Fraction(found[1]) * (_SCALES | _MYRIADS)[found[2]])


# ---------------------------------------------------------------- Chinese numerals


def _chinese(text: str) -> str | None:
    """Return the digits of a Chinese numeral with or without a counter: ``三分之二``, ``五个``."""
    found = _CHINESE.fullmatch(text)
    if found is None:
        return None
    sign, unit = "-" if found["sign"] else "", _NAMES.get(found["unit"] or "", "")
    parts = [_value(found[key]) if found[key] else 0 for key in ("percent", "whole", "top")]
    if None in parts or (found["top"] and not parts[1]):
        return None
    percent, whole, top = parts
    if found["percent"]:
        return f"{sign}{percent}%"
    places = "".join(str(_DIGITS[c]) for c in found["places"] or "")
    number = f"{top}/{whole}" if found["top"] else f"{whole}" + (f".{places}" if places else "")
    return f"{sign}{number} {unit}".strip()


def _value(numeral: str) -> int | None:
    if len(numeral) > 1 and all(c in _DIGITS for c in numeral):
        return int("".join(str(_DIGITS[c]) for c in numeral))  # 二〇二四
    total = section = 0
    digit: int | None = None
    for char in numeral:
        if char in _DIGITS:
            if digit:
                return None
            digit = _DIGITS[char]
        elif char in _SCALES:
            section += (1 if digit is None else digit) * _SCALES[char]
            digit = None
        else:
            total += (section + (digit or 0)) * _MYRIADS[char]
            section, digit = 0, None
    return total + section + (digit or 0)
