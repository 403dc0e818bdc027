"""Mask the parts of a text that are secrets. docs/masking.md lists them.

A part is a secret because of its own form (a JSON Web Token), or because of the text before it
(`Bearer …`, `password=…`), or because the same value was masked in the run's arguments.
"""

import re
import sys
from base64 import b64decode
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, unquote

import orjson

from systemtasks.runs.secret_names import hides

MASK = "********"

SHORTEST = 4
"""The minimum length, in characters, of an argument's value that is masked in texts as well.

A shorter one would make many texts unreadable, and a reader could guess it anyway.
"""
SHORTEST_IN_WORDS = 8
"""The minimum length of such a value that is masked inside longer words and numbers, too."""
OWN_LIMIT = 100
"""The maximum number of masked values of a run that are looked for in its texts."""
NO_SECRETS = frozenset(("None", "True", "False", "null", "true", "false"))

CUT_END = re.compile(r"… \(\d+ more (?:characters|bytes)\)")
CUT_START = re.compile(r"\(\d+ characters before\) …")
"""The notes where a text is cut. A part of a secret may be next to them."""

Found = list[str]


# Secrets found by their form, and by the text before them.

_USERINFO = re.compile(
    r"""
    (?: // (?P<secret>
        [^\s/?#@:"'<>\\]* : (?! \d{1,5} (?: [/?#] | …\ ) )  # a port, if only digits follow
        (?: (?!//|…\ \() [^\s"'<>] )*
    ) (?= @ | …\ \( ) )
    | (?: (?:https?|wss?):// (?P<name>[^\s/?#@:"'<>\\]+) (?=@) )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_SCHEME = re.compile(
    r"""(?<![\w-]) (?P<scheme>bearer|basic|token|apikey) (?:\s{1,3}|%20|\+)
    (?P<secret> [^\s"'`,;<>(){}\[\]\\…]+ )""",
    re.IGNORECASE | re.VERBOSE,
)
_HEADER = re.compile(
    r"""(?<![\w-]) (?: (?:proxy-)?authorization (?:\\*["'])? \s? : \s?
    (?P<secret> (?:digest|aws4[\w-]*|hawk|oauth|signature) \s [^\r\n]+
        | (?:[a-z][\w-]* \s)? [^\s"'`,;<>(){}\[\]\\]+ )
    | (?:set-)?cookie \s? : \s?
    (?P<cookie> (?: = \\*["'] [^"'\r\n]* ["'] | [^\r\n"'] )+ ) )""",
    re.IGNORECASE | re.VERBOSE,
)
_TOKENS = re.compile(
    r"""(?<![A-Za-z0-9]) (?P<secret>
    eyJ[\w-]{6,} \. [\w-]{4,} (?: \. [\w-]* ){0,3}
    | gh[opsur]_ \w{8,} | github_pat_ \w{8,} | glpat- [\w-]{8,}
    | sk- (?=[\w-]*[0-9A-Z]) [\w-]{12,} | [sr]k_(?:live|test)_ \w{6,} | whsec_ [\w+/=]{8,}
    | (?:AKIA|ASIA) [A-Z0-9]{12,}
    | xox[a-z]- [\w-]{6,} | xapp- [\w-]{8,} | hooks\.slack\.com/services/ [\w/]{8,}
    | AIza [\w-]{20,} | ya29\. [\w-]{8,} | GOCSPX- [\w-]{8,}
    | npm_ \w{20,} | pypi- [\w-]{20,} | dop_v1_ \w{20,} | SG\. [\w-]{12,} \. [\w-]{12,}
    | discord(?:app)?\.com/api/webhooks/ \d+ / [\w-]{8,} | (?:bot)? \d{6,12} :AA [\w-]{20,}
    | 1//0 [\w-]{20,} | AGE-SECRET-KEY-1 [A-Z0-9]{8,}
    | shp(?:at|ss)_ \w{12,} | hf_ \w{20,} | dckr_pat_ [\w-]{12,} | hvs\. [\w-]{12,}
    )""",
    re.VERBOSE,
)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----"
    r"(?P<secret>.*?)(?=-----END |…\ \(|\Z)",
    re.DOTALL,
)

_ENCODED_USERINFO = re.compile(
    r"""%2F%2F (?P<secret>
        (?: (?!%2F|%3A|%40) [^\s"'<>&=] )* %3A (?! \d{1,5} %2F )
        (?: (?!%2F%2F) [^\s"'<>&=] )*
    ) (?= %40 )""",
    re.IGNORECASE | re.VERBOSE,
)
_ENCODED_QUERY = re.compile(
    r"""(?<![\w.-]) (?P<names> [\w.-]{1,100}+ ) %3D
    (?P<secret> (?: (?!%26|%3B) [^\s"'<>&;,] )+ )""",
    re.IGNORECASE | re.VERBOSE,
)
_COLUMNS = re.compile(
    r"""\( (?P<names> [\w", ]{1,1000}+ ) \)=\( (?P<secret> [^\n]+ ) \)""", re.VERBOSE
)
"""The columns and values of a row that Postgres refuses: `Key (token)=(…) already exists.`"""
_SQL = re.compile(
    r"""(?<!\w) (?: password | identified \s+ by ) \s+ E?' (?P<secret> (?: [^'] | '' )+ ) '""",
    re.IGNORECASE | re.VERBOSE,
)
_ELEMENT = re.compile(
    r"""< (?: [\w.-]{1,100}+ : )? (?P<names> [\w.-]{1,100}+ ) (?: \s [^<>]* )? >
    (?P<secret> <!\[CDATA\[ (?: (?!\]\]>) . )+ \]\]> | [^<]+ ) (?= </ )""",
    re.DOTALL | re.VERBOSE,
)
_PROPERTY = re.compile(
    r"""(?<![a-z]) (?: name | key ) (?: \\*["'] )? \s?[=:]\s?
    \\*["'] (?P<names> [\w.-]{1,100}+ ) \\*["']
    (?: [\s,]{1,3} (?: \\*["'] )? value (?: \\*["'] )? \s?[=:]\s? (?P<quote> \\*["'] ) | > )
    (?P<secret> (?(quote) (?: (?!(?P=quote)) [^\n] )+ | [^<\n]+ ) )""",
    re.IGNORECASE | re.VERBOSE,
)
"""A name and its value that are the values of two names: `name="password" value="…"`."""
_LOGIN = re.compile(
    r"""(?<![\w-]) (?: -u | --(?:proxy-)?user ) (?: \s+ | = ) ["']?
    (?P<secret> (?! \d+:\d+ (?!\S) ) [^\s:"'/]+ : [^\s"']+ )""",
    re.VERBOSE,
)
"""The user and the password in an option of curl."""

_RULES: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = (
    (("%2f%2f", "%40"), _ENCODED_USERINFO),
    (("%3d",), _ENCODED_QUERY),
    ((")=(",), _COLUMNS),
    (("password ", "'"), _SQL),
    (("identified", "'"), _SQL),
    (("</",), _ELEMENT),
    (("value",), _PROPERTY),
    (("name", "</"), _PROPERTY),
    (("-u", ":"), _LOGIN),
)
"""Patterns, each with the texts in small letters that are looked for first."""

_SCHEMES = ("bearer", "basic", "token", "apikey")
_HEADERS = ("authorization", "cookie")
_PREFIXES = (
    *("eyJ", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "sk-", "sk_live_"),
    *(
        "sk_test_",
        "rk_live_",
        "rk_test_",
        "whsec_",
        "AKIA",
        "ASIA",
        "xox",
        "xapp-",
        "AIza",
        "ya29.",
    ),
    *("GOCSPX-", "npm_", "pypi-", "dop_v1_", "SG.", "shpat_", "shpss_", "hf_", "dckr_pat_", "hvs."),
    *("hooks.slack.com", "/api/webhooks/", ":AA", "1//0", "AGE-SECRET-KEY-1"),
)
"""Texts that are looked for first: that is much faster than a regular expression."""

_LONG_WORD = re.compile(r"[\w./-]{11}")
"""A part of each token with a form of its own."""
_SIGNS = ("=", ":", ",", ">")
SHORTEST_WITHOUT_SIGN = 11
"""The minimum length of a text of only letters and digits that may have a secret."""

_BEARER_OF = frozenset(
    (
        *("and", "are", "auth", "authentication", "authorization", "credential", "credentials"),
        *("error", "for", "format", "has", "header", "in", "invalid", "is", "missing", "must"),
        *("not", "of", "or", "required", "scheme", "security", "the", "token", "tokens", "type"),
        *("was", "with"),
    )
)
"""Words that follow "Bearer" in sentences."""


def mask_text(text: str, found: Found | None = None) -> str:
    """Return the text with its secrets masked. Add the secrets to `found`, if it is given."""
    if len(text) < SHORTEST_WITHOUT_SIGN and text.isalnum():
        return text
    if "//" in text and ("@" in text or "… (" in text):
        text = _USERINFO.sub(lambda match: _masked(match, _secret_of(match), found), text)
    if "-----BEGIN " in text:
        text = _PRIVATE_KEY.sub(lambda match: _masked(match, "secret", found), text)
    lowered = text.lower()
    if _has_one(lowered, _HEADERS):
        text = _HEADER.sub(lambda match: _masked(match, _secret_of(match), found), text)
    if _has_one(lowered, _SCHEMES):
        text = _SCHEME.sub(lambda match: _masked_scheme(match, found), text)
    if _LONG_WORD.search(text) is not None and _has_one(text, _PREFIXES):
        text = _TOKENS.sub(lambda match: _masked(match, "secret", found), text)
    for signs, pattern in _RULES:
        for sign in signs:
            if sign not in lowered:
                break
        else:
            text = pattern.sub(lambda match: _masked_if_named(match, found), text)
    return _mask_named(text, found) if _has_one(text, _SIGNS) or "--" in text else text


def _masked_if_named(match: re.Match[str], found: Found | None) -> str:
    """Return the match with its secret masked, if one of its names is that of a secret."""
    names = match.groupdict().get("names")
    if names is not None and not any(map(hides, names.split(","))):
        return match[0]
    return _masked(match, "secret", found)


def _has_one(text: str, signs: tuple[str, ...]) -> bool:
    for sign in signs:  # noqa: SIM110 - a generator takes longer
        if sign in text:
            return True
    return False


def _secret_of(match: re.Match[str]) -> str:
    return match.lastgroup or "secret"


def _masked(match: re.Match[str], group: str, found: Found | None) -> str:
    """Return the match with this group of it masked."""
    secret = match[group]
    if not secret.strip(":") or secret == MASK:
        return match[0]
    if found is not None:
        found.append(secret)
        if match.re is _USERINFO:
            found.append(secret.partition(":")[2])
        elif match.re is _ENCODED_USERINFO:
            found.append(unquote(secret).partition(":")[2])
    start, end = match.start(group) - match.start(), match.end(group) - match.start()
    return f"{match[0][:start]}{MASK}{match[0][end:]}"


def _masked_scheme(match: re.Match[str], found: Found | None) -> str:
    is_credential = _IS_CREDENTIAL[match["scheme"].lower()]
    if not is_credential(match["scheme"], match["secret"]):
        return match[0]
    return _masked(match, "secret", found)


def _is_bearer_token(scheme: str, text: str) -> bool:
    word = text.rstrip(".:!?")
    if word.lower() in _BEARER_OF or word.lower().startswith("realm="):
        return False
    # "the bearer shall …": a sentence, unless it is written as in a header.
    return scheme != "bearer" or not (word.isalpha() and word.islower())


def _is_user_and_password(scheme: str, text: str) -> bool:
    text = text.rstrip("=.").replace("-", "+").replace("_", "/")
    try:
        return b":" in b64decode(text + "A" * (-len(text) % 4))
    except ValueError:
        return False


def _is_long_token(scheme: str, text: str) -> bool:
    return len(text) >= 16 and not text.isalpha()


_IS_CREDENTIAL: dict[str, Callable[[str, str], bool]] = {
    "bearer": _is_bearer_token,
    "basic": _is_user_and_password,
    "token": _is_long_token,
    "apikey": _is_long_token,
}


# Secrets found by their names: `password=…`, `'password': '…'`, `{"password": "…"}`.

SIGNS = frozenset(("", "=", "=>", ":", ",", ">"))
"""What is between a name and its value."""

_NAMED_BACKWARDS = re.compile(
    r"""
    (?P<sign> [>=:,] =? ) \s? \]? (?P<quote> ["']\\* )? (?P<name> [\w.-]{1,100}+ )
    """,
    re.VERBOSE,
)
"""A sign and the name before it, in a reversed text: signs are rarer than names."""
_OPTION = re.compile(r"(?<![\w-])--(?P<name>[a-z][\w-]{0,100}+)\s+(?=[^\s-])", re.IGNORECASE)
"""An option of a command, whose value is the next word."""
_CODE = re.compile(r"""^[ |]*File "[^"\n]*", line \d+[^\n]*(?:\n[ |]* {4}[^\n]*)*""", re.MULTILINE)
"""The lines of a traceback that quote the source."""
_VALUE = re.compile(
    r"""
    (?P<block> [|>] [+-]? [ ]* \n (?P<indent> [ \t]+ ) [^\n]+ (?: \n (?P=indent) [^\n]+ )* )
    | [bBfFuUrR]{0,2} (?P<quote> \"{3} | '{3} | \\*["'])
        (?P<quoted> (?: (?!(?P=quote)) (?: \\. | [^\\] ) )* )
    | (?P<container> \{ (?: [^{}] | \{[^{}]*\} )* \} | \[ (?: [^\[\]] | \[[^\[\]]*\] )* \]
        | \( (?: [^()] | \([^()]*\) )* \) )
    | (?P<bare> (?![=:/]) [^\s,;&'"(){}\[\]<>\\]+  # neither `==`, nor `:=`, nor `://`
        # The rest of it after a comma, unless another name and its value begin there.
        (?: [,;&] [^\s,;&'"(){}\[\]<>\\=:]+ (?= [\s,;&] | \Z ) )* )
    """,
    re.DOTALL | re.VERBOSE,
)
"""A value: a block of YAML, a quoted text, a container, or a word."""
_REST = re.compile(
    r"""[(\[{] \S* | (?P<quote>["']) (?: \\. | (?!(?P=quote)) [^\\\n] )* (?P=quote)""", re.VERBOSE
)
"""What is directly after a word, and not closed or no container: `hun(ter2`, `sid='…'`."""
_LITERALS = re.compile(
    r"""(?P<quote>["'])(?P<text>(?:(?!(?P=quote))(?:\\.|[^\\]))*)(?P=quote)(?P<colon>\s?:)?"""
)
"""The texts in a container. A text before a colon is a key."""


@dataclass(frozen=True, slots=True)
class _Name:
    """A name in a text, whose value may follow it."""

    text: str
    start: int
    """The index of the first character of the name, or of the quotation mark before it."""
    end: int
    """The index at which the value begins."""
    sign: str
    """The text between the name and its value; see SIGNS."""
    is_quoted: bool


def _mask_named(text: str, found: Found | None) -> str:
    pieces: list[str] = []
    end = 0
    for name in _names_in(text):
        if name.start < end or name.sign not in SIGNS:
            continue  # it is in the value of the one before, or compared with something
        value = _VALUE.match(text, name.end)
        if value is None or not _is_value(text, name, value):
            continue
        group = _secret_of_value(value)
        if found is not None:
            found += _literals(value) if group == "container" else [value[group]]
        pieces += (text[end : value.start(group)], MASK)
        end = value.end(group) if group != "bare" else _end_of_word(text, value)
    return "".join((*pieces, text[end:])) if pieces else text


def _names_in(text: str) -> list[_Name]:
    """Return the names of secrets in a text, in their order."""
    size = len(text)
    names: list[_Name] = []
    for match in _NAMED_BACKWARDS.finditer(text[::-1]):
        name = match["name"][::-1]
        if hides(name):
            start, quote = size - match.end(), (match["quote"] or "")[::-1]
            if quote:
                start -= len(quote)
                if not text.startswith(quote, start):
                    continue
            end = _after_space(text, size - match.start())
            names.append(_Name(name, start, end, match["sign"][::-1], is_quoted=bool(quote)))
    if "--" in text:
        names += (
            _Name(match["name"], match.start(), match.end(), "", is_quoted=False)
            for match in _OPTION.finditer(text)
            if hides(match["name"])
        )
    if names and 'File "' in text:
        code = [match.span() for match in _CODE.finditer(text)]
        names = [one for one in names if not _is_within(code, one.start)]
    return sorted(names, key=lambda name: name.start)


def _end_of_word(text: str, word: re.Match[str]) -> int:
    """Return the index after a word and what belongs to it, as in `SecretStr('…')`."""
    end = word.end()
    if text[end : end + 1] in ("(", "[", "{", "'", '"'):
        rest = _VALUE.match(text, end)
        if rest is None or rest["container"] is None:
            rest = _REST.match(text, end)
        end = rest.end() if rest is not None else end
    return end


def _after_space(text: str, index: int) -> int:
    """Return the index after up to two spaces at this index."""
    for _ in range(2):
        if text[index : index + 1].isspace():
            index += 1
    return index


def _is_within(spans: Sequence[tuple[int, int]], index: int) -> bool:
    """Return True if the index is within one of the spans, which are in order."""
    last = bisect_right(spans, (index, sys.maxsize)) - 1
    return last >= 0 and index < spans[last][1]


def _secret_of_value(value: re.Match[str]) -> str:
    return next(
        group for group in ("block", "quoted", "container", "bare") if value[group] is not None
    )


def _literals(value: re.Match[str]) -> list[str]:
    literals = _LITERALS.finditer(value["container"])
    return [match["text"] for match in literals if not match["colon"]]


def _is_value(text: str, name: _Name, value: re.Match[str]) -> bool:
    """Return True if this is the value of the name, and not the next word of a sentence."""
    group = _secret_of_value(value)
    secret = value[group]
    if not secret or secret == MASK:
        return False
    if group == "bare" and secret in NO_SECRETS:
        return False
    before = text[name.start - 1 : name.start] if name.start else ""
    if before == "b" and name.is_quoted and name.start > 1:  # (b"cookie", b"…")
        before = text[name.start - 2]
    if (
        name.sign == ","
    ):  # a pair, or two words of a command: ("password", "…"), ["--password", "…"]
        ends = text.startswith((f"{value['quote']})", f"{value['quote']}]"), value.end())
        is_pair = bool(before) and before in "([" and ends
        is_option = name.text.startswith("--")
        return name.is_quoted and group == "quoted" and (is_pair or is_option)
    if name.sign == ">":
        return before == "<" and group == "bare"
    if name.sign == ":" and not name.is_quoted:
        return group in ("block", "quoted") or (
            group == "bare" and len(secret) >= SHORTEST and not secret.isalpha()
        )
    return True


# The values that were masked in a run's own arguments.


@dataclass(frozen=True, slots=True)
class OwnSecrets:
    """The values that were masked in a run's arguments, to be masked in its texts as well."""

    forms: tuple[str, ...]
    """Their forms in texts, the longest first: a shorter one may be a part of a longer one."""

    @classmethod
    def of(cls, values: Iterable[str]) -> Self | None:
        """Return these values, or None if none of them can be masked in a text."""
        forms: set[str] = set()
        for value in list(dict.fromkeys(values))[:OWN_LIMIT]:
            stripped = value.strip()
            if len(stripped) >= SHORTEST and stripped not in NO_SECRETS and stripped not in MASK:
                forms |= _forms(stripped)
        return cls(tuple(sorted(forms, key=len, reverse=True))) if forms else None

    def mask(self, text: str) -> str:
        """Return the text with these values masked, and also parts of them where it is cut."""
        for form in self.forms:
            if form in text:
                text = _replace(text, form)
        if "… (" in text:
            text = self._mask_parts(text, CUT_END, self._length_at_end)
        if ") …" in text:
            text = self._mask_parts(text, CUT_START, self._length_at_start)
        return text

    def is_in(self, text: str) -> bool:
        """Return True if one of these values may be in the text, or a part where it is cut."""
        return "… (" in text or any(form in text for form in self.forms)

    def is_masked(self, text: str) -> bool:
        """Return True if the text is one of these values."""
        return text in self.forms

    def _mask_parts(
        self, text: str, note: re.Pattern[str], length: Callable[[str, re.Match[str]], int]
    ) -> str:
        pieces: list[str] = []
        end = 0
        for match in note.finditer(text):
            size = length(text, match)
            if not size:
                continue
            start = match.start() - size if note is CUT_END else match.end()
            if start >= end:
                pieces += (text[end:start], MASK)
                end = start + size
        return "".join((*pieces, text[end:])) if pieces else text

    def _length_at_end(self, text: str, note: re.Match[str]) -> int:
        """Return the length of a value's beginning that is before the note."""
        return self._longest(lambda part: text.endswith(part, 0, note.start()), start=True)

    def _length_at_start(self, text: str, note: re.Match[str]) -> int:
        """Return the length of a value's end that is after the note."""
        return self._longest(lambda part: text.startswith(part, note.end()), start=False)

    def _longest(self, stands: Callable[[str], bool], *, start: bool) -> int:
        for form in self.forms:
            for size in range(len(form) - 1, SHORTEST - 1, -1):
                if stands(form[:size] if start else form[-size:]):
                    return size
        return 0


def _forms(value: str) -> set[str]:
    """Return the value's forms in texts: plain, quoted by Python and by JSON, and in a URL."""
    if value.isalnum() and value.isascii():
        return {value}
    in_url = (quote(value, safe, errors="replace") for safe in ("/", ""))
    forms = {value, repr(value)[1:-1], *in_url, unquote(value)}
    with suppress(TypeError):  # a lone surrogate
        forms.add(orjson.dumps(value).decode()[1:-1])
    return {form for form in forms if len(form) >= SHORTEST}


def _replace(text: str, form: str) -> str:
    if len(form) >= SHORTEST_IN_WORDS:
        return text.replace(form, MASK)
    return re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", MASK, text)
