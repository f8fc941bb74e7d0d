"""Keep passwords and keys out of everything a run writes: by name, by shape, by value.

- By name: a value whose key is called ``api_key``, ``password``, ``hf_token`` and the like.
- By shape: user and password in a URL, ``Bearer`` headers, keys with a published prefix
  (``sk-``, ``hf_``, ``ghp_``, ``AKIA``…), JSON web tokens, PEM blocks.
- By value: the values of environment variables with such names, wherever they occur.

Prompts and responses are data and are not changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

REDACTED = "<redacted>"
"""Replaces a secret. A recipe that contains it cannot be run as it is."""

SHORTEST = 8
"""Shorter values of environment variables are not searched for: ``1`` occurs everywhere."""

_LAST_WORDS = (
    "secret", "secrets", "password", "passwd", "passphrase", "credential", "credentials", "apikey",
    "bearer", "authorization", "cookie",
)  # fmt: skip
_KEYS = ("api", "access", "private", "secret", "auth", "account", "signing", "encryption")
_MARKERS = (
    "eos", "bos", "pad", "unk", "sep", "cls", "mask", "stop", "end", "start", "image", "think",
    "special", "first", "last", "next", "per",
)  # fmt: skip
"""With one of these words before it, ``token`` means a token of text: ``eos_token``.

Such a name is not that of a secret.
"""

# Each pattern takes linear time: it starts only at the beginning of a word (by a lookbehind) and
# does not backtrack (``++``, ``(?>…)``).
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_USERINFO = re.compile(r"(?<=[A-Za-z0-9+.-])://[^/\s?#'\"<>]*@")
_ASSIGNED = re.compile(
    r"""(?<![\w.-])(?>[\w.-]*?(?P<name>[A-Za-z][\w.-]*+))"""
    r"""(?P<sign>["']?\s*+(?:=|:(?=[\s"']))\s*+)"""
    r"""(?P<value>"[^"\n]*"|'[^'\n]*'|[^\s,;&)\]}"']{1,256}+)"""
)
_REST = re.compile(r"""(?<!["'])[^\s,;&)\]}"']*""")
"""The rest of a value after its first 256 characters, which decide whether it is a secret."""
_OPTION = re.compile(
    r"(?<![\w-])(?>[\w-]*?(?P<name>--?[A-Za-z][\w-]*+))(?P<sign>\s++)(?P<value>[^\s-]\S*)"
)
_PEM = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.S)
_JSON_WEB_TOKEN = re.compile(r"(?<![\w-])(?>([\w-]*?)\beyJ[\w-]{8,}+)\.eyJ[\w-]{8,}\.[\w-]*")
_KEY = re.compile(
    r"\b(?:sk-(?:\w{1,20}-){0,5}(?=[A-Za-z]*\d)[A-Za-z0-9]{16,}[\w-]*|hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
    r"|glpat-[\w-]{16,}|xox[abeoprs]-[\w-]{10,}|(?:AKIA|ASIA)[0-9A-Z]{16}\b|AIza[\w-]{35})"
)
_LIKE_A_KEY = re.compile(r"(?=[^\d]*\d)[\w+/.=~-]{8,}")
_BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)(?=[\w+/.=~-]*\d)[\w+/.=~-]{8,}")


def is_secret_name(name: str) -> bool:
    """Whether a value of this name is a secret, which must not be written down.

    >>> [is_secret_name(n) for n in ("judge.api_key", "HF_TOKEN", "apiKey", "db-password")]
    [True, True, True, True]
    >>> [is_secret_name(n) for n in ("max_tokens", "eos_token", "tokenizer", "key", "token_budget")]
    [False, False, False, False, False]
    """
    words = ["", "", *(word.lower() for word in _WORDS.findall(name.rpartition(".")[2]))]
    if words[-1] == "token":
        return words[-2] not in _MARKERS
    return words[-1] in _LAST_WORDS or (words[-1] in ("key", "keys") and words[-2] in _KEYS)


def redact(value: Any, name: str = "") -> Any:
    """Return ``value`` (tables, lists, strings) with each secret replaced by ``REDACTED``."""
    if isinstance(value, Mapping):
        return {key: redact(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item, name) for item in value]
    if not isinstance(value, str) or not value:
        return value
    return REDACTED if is_secret_name(name) else redact_text(value)


def redact_text(text: str) -> str:
    """Return a text, such as a traceback or a command, with its secrets replaced.

    >>> redact_text("GET https://me:hunter2@host/v1?api_key=abc&n=1")
    'GET https://<redacted>@host/v1?api_key=<redacted>&n=1'
    >>> redact_text("-s judge.api_key=abc --password hunter2 --max-tokens 8")
    '-s judge.api_key=<redacted> --password <redacted> --max-tokens 8'
    """
    for secret in _of_the_environment():
        text = text.replace(secret, REDACTED)
    text = _JSON_WEB_TOKEN.sub(rf"\1{REDACTED}", _PEM.sub(REDACTED, text))
    text = _USERINFO.sub(f"://{REDACTED}@", _KEY.sub(REDACTED, text))
    text = _BEARER.sub(rf"\1\2{REDACTED}", text)
    return _replace(_OPTION, _replace(_ASSIGNED, text))


def redact_command(words: Sequence[str]) -> list[str]:
    """Return the words of a command line with secrets replaced.

    >>> redact_command(["run", "--api-key", "abc", "-s", "url=http://a:b@c"])
    ['run', '--api-key', '<redacted>', '-s', 'url=http://<redacted>@c']
    """
    secret = [False, *(w.startswith("-") and "=" not in w and is_secret_name(w) for w in words)]
    return [REDACTED if s else redact_text(w) for w, s in zip(words, secret, strict=False)]


def _replace(pattern: re.Pattern[str], text: str) -> str:
    """Replace values found by ``pattern`` whose name is that of a secret."""
    parts, at = [], 0
    while found := pattern.search(text, at):
        secret = _is_assigned_secret(found["name"], found["value"])
        end = found.end() if secret else found.end("sign")  # a value may hold another assignment
        if secret and (rest := _REST.match(text, end)):
            end = rest.end()
        mark = found["value"][0] if found["value"][0] in "\"'" else ""
        hidden = [text[at : found.start("value")], f"{mark}{REDACTED}{mark}"]
        parts += hidden if secret else [text[at:end]]
        at = end
    return "".join([*parts, text[at:]])


def _is_assigned_secret(name: str, value: str) -> bool:
    bare = value.strip("\"'")
    if not is_secret_name(name) or bare in ("", "None", "null", REDACTED):
        return False
    # In code that handles text, ``token = tokens[i]`` is not a secret.
    return name.lower() != "token" or bool(_LIKE_A_KEY.fullmatch(bare))


def _of_the_environment() -> list[str]:
    """Return the secrets in the environment, also percent-encoded, longest first."""
    values = {
        value
        for name, value in os.environ.items()
        if is_secret_name(name) and len(value) >= SHORTEST and not value.startswith("/")
    }
    return sorted(values | {quote(value, safe="") for value in values}, key=len, reverse=True)
