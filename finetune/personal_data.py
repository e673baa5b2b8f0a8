"""Find personal data and secrets in a text, by form, checksum and the words before. Pure, no model.

Addresses are found only where their form or the words around them give them away, names also by
the lists of finetune.names; docs/curate.md says what is not covered.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple

from finetune import names


class Finding(NamedTuple):
    """What was found at [start, end) of the text."""

    kind: str
    start: int
    end: int


Spans = Iterable[tuple[int, int]]
# What opens a door, in contrast to what tells of a person.
SECRETS = frozenset({"private_key", "api_key", "password"})
# Too often somebody famous or in a story: marked for the reader, no reason to hold a pair up.
WEAK = frozenset({"name"})


def find(text: str) -> list[Finding]:
    """Give what was found, in order; findings do not overlap, the surer kind wins."""
    taken: list[Finding] = []  # in order of their places
    for kind, recognise in _RECOGNISERS if _DIGIT.search(text) else _WITHOUT_DIGITS:
        for start, end in recognise(text):
            at = bisect_left(taken, start, key=lambda finding: finding.start)
            is_free = at == 0 or taken[at - 1].end <= start
            if is_free and (at == len(taken) or taken[at].start >= end):
                taken.insert(at, Finding(kind, start, end))
    return taken


def _private_keys(text: str) -> Spans:
    if "-----BEGIN" in text:
        yield from (found.span() for found in _PRIVATE_KEY.finditer(text))


_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[\s\S]{0,20000}?-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----)?"
)


def _keys(text: str) -> Spans:
    if _has_one(text, _KEY_STARTS):
        yield from (found.span() for found in _KEY.finditer(text))
    if _may_assign(text):
        for found in _ASSIGNED_KEY.finditer(text):
            if _looks_random(found["value"]):
                yield found.span("value")


_KEY_STARTS = (
    "AKIA", "ASIA", "gh", "glpat-", "xox", "sk-", "k_live_", "k_test_", "AIza", "hf_", "npm_",
    "pypi-", "SG.", "eyJ",
)  # fmt: skip
_KEY = re.compile(
    r"(?<![\w-])(?:(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{60,}"
    r"|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,}|sk-(?:proj-|ant-)?[\w-]{20,}"
    r"|[sr]k_(?:live|test)_\w{16,}|AIza[\w-]{35}|hf_[A-Za-z]{30,}|npm_\w{36}|pypi-[\w-]{50,}"
    r"|SG\.[\w-]{20,}\.[\w-]{20,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
)
_ASSIGNED = ("key", "token", "secret", "pass", "pwd", "bearer", "kennwort", "contraseñ")
_ASSIGNED_KEY = re.compile(
    r"(?:(?:api|access|secret|private|auth|client|encryption|account)[ _-]?key|token|secret|bearer)"
    r"[\"']?\s{0,3}(?:[:=]|is\b)?\s{0,3}[\"'`]?(?P<value>[A-Za-z0-9_\-+/.=]{16,200})",
    re.IGNORECASE,
)


def _may_assign(text: str) -> bool:
    return _has_one(text.lower(), _ASSIGNED)


def _has_one(text: str, words: Iterable[str]) -> bool:
    """Tell quickly that a pattern, which needs one of these words, is worth looking for."""
    return any(map(text.__contains__, words))


def _looks_random(value: str) -> bool:
    """Tell a key from a word, a path or a placeholder: letters and digits take turns."""
    turns = len(re.findall(r"(?<=[A-Za-z])\d|(?<=\d)[A-Za-z]", value))
    return turns >= 3 and len(set(value)) >= 10


def _passwords(text: str) -> Spans:
    if not _may_assign(text):
        return
    for found in _PASSWORD.finditer(text):
        value = found["value"].rstrip(".,;)")
        # "The password is wrong" tells nothing; "the password is gl4cier!" does.
        if found["sign"] != "is" or re.search(r"\d|[^\w\s.,;'’-]", value):
            yield found.start("value"), found.start("value") + len(value)


_PASSWORD = re.compile(
    r"\b(?:password|passwd|pwd|passphrase|passcode|passwort|kennwort|contraseña|mot de passe)"
    r"[\"']?\s{0,3}(?P<sign>[:=]|\bis\b)\s{0,3}[\"'`]?"
    r"(?P<value>(?!\{|<|\[|\(|\$|\*{3}|(?:str|string|None|null|true|false)\b)[^\s\"'`]{4,64})",
    re.IGNORECASE,
)


def _mails(text: str) -> Spans:
    if "@" in text:
        yield from (found.span() for found in _MAIL.finditer(text))


_MAIL = re.compile(
    r"(?<![\w.+-])[\w+-]+(?:\.[\w+-]+)*@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}(?![\w-])"
)


def _ibans(text: str) -> Spans:
    for found in _IBAN.finditer(text):
        start = found.start() - 2
        if start < 0 or text[start - 1 : start].isalnum() or not text[start : start + 2].isalpha():
            continue
        country = text[start : start + 2].upper()
        end = _end_of_code(text, start, _IBAN_LENGTHS.get(country, 0))
        if end and _is_iban("".join(text[start:end].split())):
            yield start, end


# Without the two letters of its country: a digit is found faster.
_IBAN = re.compile(r"\d\d ?[A-Za-z0-9]{4} ?[A-Za-z0-9]{3}")
_IBAN_LENGTHS = {
    code[:2]: int(code[2:])
    for code in [
        "AD24",
        "AE23",
        "AL28",
        "AT20",
        "AZ28",
        "BA20",
        "BE16",
        "BG22",
        "BH22",
        "BI27",
        "BR29",
        "BY28",
        "CH21",
        "CR22",
        "CY28",
        "CZ24",
        "DE22",
        "DJ27",
        "DK18",
        "DO28",
        "EE20",
        "EG29",
        "ES24",
        "FI18",
        "FK18",
        "FO18",
        "FR27",
        "GB22",
        "GE22",
        "GI23",
        "GL18",
        "GR27",
        "GT28",
        "HN28",
        "HR21",
        "HU28",
        "IE22",
        "IL23",
        "IQ23",
        "IS26",
        "IT27",
        "JO30",
        "KW30",
        "KZ20",
        "LB28",
        "LC32",
        "LI21",
        "LT20",
        "LU20",
        "LV21",
        "LY25",
        "MC27",
        "MD24",
        "ME22",
        "MK19",
        "MN20",
        "MR27",
        "MT31",
        "MU31",
        "NI28",
        "NL18",
        "NO15",
        "OM23",
        "PK24",
        "PL28",
        "PS29",
        "PT25",
        "QA29",
        "RO24",
        "RS22",
        "RU33",
        "SA24",
        "SC31",
        "SD18",
        "SE24",
        "SI19",
        "SK24",
        "SM27",
        "SO23",
        "ST25",
        "SV28",
        "TL23",
        "TN24",
        "TR26",
        "UA29",
        "VA22",
        "VG24",
        "XK20",
        "YE30",
    ]
}


def _end_of_code(text: str, start: int, length: int) -> int:
    """Give the place behind `length` ASCII letters or digits, single spaces aside; 0 for none."""
    found = re.compile(rf"(?:[A-Za-z0-9] ?){{{length - 1}}}[A-Za-z0-9](?!\w)").match(text, start)
    return found.end() if length and found else 0


def _is_iban(code: str) -> bool:
    turned = code[4:] + code[:4]
    return int("".join(str(int(character, 36)) for character in turned)) % 97 == 1


def _machine_addresses(text: str) -> Spans:
    for pattern in (_IPV4, *([_IPV6] if text.count(":") > 1 else [])):
        for found in pattern.finditer(text):
            before = text[: found.start()][-9:].lower()
            if before[-1:].isalnum() or before[-1:] in (".", ":") or before.endswith(_VERSIONS):
                continue
            try:
                address = ip_address(found[0])
            except ValueError:
                continue
            # 127.0.0.1 and its like are everybody's.
            if not (address.is_loopback or address.is_unspecified or address.is_multicast):
                yield found.span()


_VERSIONS = ("version ", "v")
_IPV4 = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?:[0-9a-fA-F]{1,4}:){1,7}(?::|(?::?[0-9a-fA-F]{1,4}){1,7})(?![\w:])")


class _Number(NamedTuple):
    """A run of digits with its separators; `before`: what stands in front of it, in lower case."""

    text: str
    digits: str
    before: str


def _numbers(accepts: Callable[[_Number], bool]) -> Callable[[str], Spans]:
    """Turn a question about one number into a recogniser."""

    def recognise(text: str) -> Spans:
        return ((start, end) for start, end, number in _runs(text) if accepts(number))

    return recognise


@lru_cache(maxsize=1)
def _runs(text: str) -> list[tuple[int, int, _Number]]:
    """Give the long numbers of a text, once for all that ask about them."""
    return [
        (
            found.start(),
            found.end(),
            _Number(
                found[0],
                re.sub(r"\D", "", found[0]),
                text[max(0, found.start() - 40) : found.start()].lower(),
            ),
        )
        for found in _NUMBER.finditer(text)
        if not _is_part_of_something(text, *found.span())
    ]


_NUMBER = re.compile(r"[+(\d](?:[ ().\-/]{0,3}\d){5,22}")


def _is_part_of_something(text: str, start: int, end: int) -> bool:
    """Tell a number inside a word, an amount or a longer number from one that stands alone."""
    before, after = text[start - 1 : start] if start else "", text[end : end + 1]
    if text[end : end + 3].lstrip().startswith("=") or text[:start][-3:].rstrip().endswith("="):
        return True  # it is calculated with
    if before.isalnum() or (before and before in "_$€£¥#=/*+-"):
        return True
    if before and before in ".," and text[max(0, start - 2) : start - 1].isdigit():
        return True
    if after.isalnum():
        return not _EXTENSION.match(text, end)
    return bool(after) and (
        after in "_%*=" or (after in ".,:/-" and text[end + 1 : end + 2].isdigit())
    )


_EXTENSION = re.compile(r"(?:x|ext\.?) ?\d{1,6}(?!\w)")


def _is_card(number: _Number) -> bool:
    plain = re.fullmatch(r"\d+(?:[ -]\d+)*", number.text)
    return bool(
        plain
        and 12 <= len(number.digits) <= 19
        and number.digits[0] in "123456"
        and (len(number.digits) > 12 or number.digits[0] in "56")
        and len(set(number.digits)) > 1
        and passes_luhn(number.digits)
    )


def passes_luhn(digits: str) -> bool:
    """Check the last digit of a number as payment cards carry it."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        total += sum(divmod(int(digit) * 2, 10)) if place % 2 else int(digit)
    return total % 10 == 0


def _is_us_ssn(number: _Number) -> bool:
    written = re.fullmatch(r"(?!000|666)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}", number.text)
    named = re.search(r"\bssn\b|social security", number.before)
    return bool(written or (named and len(number.digits) == 9))


def _weighted(digits: str, weights: Iterable[int], modulus: int) -> int:
    return (
        sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False)) % modulus
    )


def _has_day(digits: str) -> bool:
    """Tell whether digits can be a month and a day, 0331."""
    return 1 <= int(digits[:2]) <= 12 and 1 <= int(digits[2:4]) <= 31


def _is_german_tax_id(digits: str) -> bool:
    product = 10
    for digit in digits[:10]:
        product = (int(digit) + product) % 10 or 10
        product = product * 2 % 11
    return digits[0] != "0" and (11 - product) % 10 == int(digits[10])


def _is_cpf(digits: str) -> bool:
    first = _weighted(digits, range(10, 1, -1), 11)
    second = _weighted(digits, range(11, 1, -1), 11)
    expected = [0 if rest < 2 else 11 - rest for rest in (first, second)]
    return len(set(digits)) > 1 and [int(digits[9]), int(digits[10])] == expected


def _is_pesel(digits: str) -> bool:
    month = int(digits[2:4]) % 20
    return (
        1 <= month <= 12
        and 1 <= int(digits[4:6]) <= 31
        and _weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1), 10) == 0
    )


def _is_nhs(digits: str) -> bool:
    return (11 - _weighted(digits[:9], range(10, 1, -1), 11)) % 11 == int(digits[9])


def _is_bsn(digits: str) -> bool:
    return _weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1), 11) == 0


def _is_nir(digits: str) -> bool:
    return digits[0] in "12" and 97 - int(digits[:13]) % 97 == int(digits[13:])


def _is_belgian(digits: str) -> bool:
    return _has_day(digits[2:6]) and int(digits[9:]) in (
        97 - int(digits[:9]) % 97,
        97 - int("2" + digits[:9]) % 97,
    )


_TIMES = ("0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
          "5987604321", "6598710432", "7659821043", "8765932104", "9876543210")  # fmt: skip
_TURNS = ("0123456789", "1576283094", "5803796142", "8916043527", "9453126870",
          "4286573901", "2793806415", "7046913258")  # fmt: skip


def _is_aadhaar(digits: str) -> bool:
    """Check the last digit by Verhoeff's tables: `_TIMES` multiplies, `_TURNS` permutes."""
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = int(_TIMES[check][int(_TURNS[place % 8][int(digit)])])
    return digits[0] not in "01" and check == 0


def _is_ahv(digits: str) -> bool:
    return digits.startswith("756") and _weighted(digits, (1, 3) * 7, 10) == 0


def _is_swedish(digits: str) -> bool:
    return _has_day(digits[-8:-4]) and passes_luhn(digits[-10:])


# How a number is written (None: any way), how many digits, its checksum, and the words that must
# stand before it where form and checksum alone would fit too many numbers.
_NATIONAL: tuple[tuple[str | None, int, Callable[[str], bool], str], ...] = (
    (None, 11, _is_german_tax_id, r"steuer|tax|\bidnr"),
    (r"\d{3}\.\d{3}\.\d{3}-\d{2}", 11, _is_cpf, ""),
    (None, 11, _is_cpf, r"\bcpf\b"),
    (None, 11, _is_pesel, r"pesel"),
    (r"\d{3}[ -]\d{3}[ -]\d{4}", 10, _is_nhs, r"\bnhs\b"),
    (None, 9, _is_bsn, r"\bbsn\b|burgerservice"),
    (r"[12] ?\d{2} ?\d{2} ?\d{2} ?\d{3} ?\d{3} ?\d{2}", 15, _is_nir, ""),
    (r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", 11, _is_belgian, ""),
    (r"\d{4} \d{4} \d{4}", 12, _is_aadhaar, ""),
    (None, 12, _is_aadhaar, r"a[a]?dhaar"),
    (r"756\.\d{4}\.\d{4}\.\d{2}", 13, _is_ahv, ""),
    (r"(?:\d{2})?\d{6}[-+]\d{4}", 10, _is_swedish, ""),
    (r"(?:\d{2})?\d{6}[-+]\d{4}", 12, _is_swedish, ""),
    (r"\d{3}[ -]\d{3}[ -]\d{3}", 9, passes_luhn, r"\bsin\b|social insurance"),
)


def _is_national_id(number: _Number) -> bool:
    return any(
        len(number.digits) == length
        and (form is None or re.fullmatch(form, number.text))
        and is_valid(number.digits)
        and (not words or re.search(words, number.before))
        for form, length, is_valid, words in _NATIONAL
    )


def _lettered_ids(text: str) -> Spans:
    for found in _LETTERED.finditer(text):
        kind = found.lastgroup or ""
        if text[found.start() - 1 : found.start()].isalnum():
            continue
        if _LETTERED_CHECKS[kind](found[0].replace(" ", "").replace("-", "").upper()):
            yield found.span()


# A class of characters, not a word's edge, comes first: such patterns are found far faster.
_LETTERED = re.compile(
    r"(?=[A-Z1-9])(?:(?P<spanish>[XYZ]?-?\d{7,8}-?[A-HJ-NP-TV-Z])"
    r"|(?P<italian>[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z])"
    r"|(?P<british>[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D])"
    r"|(?P<finnish>\d{6}[-+A]\d{3}[0-9A-FHJ-NPR-Y])"
    r"|(?P<chinese>[1-9]\d{16}[\dX]))\b"
)


def _is_spanish(code: str) -> bool:
    number = code[:-1].translate(str.maketrans("XYZ", "012"))
    return len(number) == 8 and "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == code[-1]


_ODD = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3,
         6, 8, 12, 14, 16, 10, 22, 25, 24, 23],
        strict=True,
    )
)  # fmt: skip


def _is_italian(code: str) -> bool:
    total = sum(int(c, 36) % 10 if c.isdigit() else ord(c) - 65 for c in code[1:15:2]) + sum(
        _ODD[c] for c in code[0:15:2]
    )
    return chr(65 + total % 26) == code[15]


def _is_finnish(code: str) -> bool:
    digits = re.sub(r"\D", "", code[:-1])[:9]
    check = "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(digits) % 31] if len(digits) == 9 else ""
    return 1 <= int(code[:2]) <= 31 and 1 <= int(code[2:4]) <= 12 and check == code[-1]


def _is_chinese(code: str) -> bool:
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return _has_day(code[10:14]) and "10X98765432"[_weighted(code[:17], weights, 11)] == code[17]


_LETTERED_CHECKS: dict[str, Callable[[str], bool]] = {
    "spanish": _is_spanish,
    "italian": _is_italian,
    "british": lambda code: code[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ"),
    "finnish": _is_finnish,
    "chinese": _is_chinese,
}


def _named_documents(text: str) -> Spans:
    for found in _DOCUMENT.finditer(text) if _has_one(text.lower(), _DOCUMENTS) else ():
        if sum(map(str.isdigit, found["value"])) >= 5:
            yield found.span("value")


_DOCUMENTS = (
    "passport", "licen", "identity card", "id card", "medical rec", "patient", "reisepass",
    "personalausweis", "führerschein",
)  # fmt: skip
_DOCUMENT = re.compile(
    r"(?:passport|driver'?s?'? licen[sc]e|driving licen[sc]e|identity card|id card|"
    r"medical record|patient|reisepass|personalausweis|führerschein)"
    r"(?: (?:number|no\.?|nr\.?|id))?\s{0,2}(?:is|:|#)?\s{0,2}(?P<value>[A-Z0-9][A-Z0-9-]{5,19})\b",
    re.IGNORECASE,
)


def _is_phone(number: _Number) -> bool:
    count, text = len(number.digits), number.text
    if not 7 <= count <= 15 or _DATE.match(text) or text.count("(") != text.count(")"):
        return False
    if _PHONE.fullmatch(text):
        return True
    return bool(_CALLED.fullmatch(text) and _CALLS.search(number.before))


# +44 20 7946 0018, (212) 555-0187, 07700 063 966, (37) 788-063, 60-56-85-91. Digits with spaces
# alone may be amounts: they need words before them.
_PHONE = re.compile(
    r"(?:\+|00)[1-9](?:[ ().\-/]{0,2}\d){7,14}"
    r"|(?:1[ .-])?\(?[2-9]\d{2}\)?[ .-]{1,2}\d{3}[ .-]\d{4}"
    r"|\(0?\d{1,4}\) ?\d{2,4}(?:[ \-/.]?\d{2,4}){1,3}"
    r"|0\d{1,4}(?:[ \-/.]\d{2,8}){1,4}"
    r"|\d{2}(?:-\d{2}){3,4}"
)
_DATE = re.compile(
    r"(?:(?:1\d|20)\d\d[-/. ]\d{1,2}[-/. ]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:1\d|20)\d\d)\b"
)
# Behind a word for calling, groups with one separator will do.
_CALLED = re.compile(r"[+(]?\d+\)?(?:[ .-]\(?\d+\)?)*")
_CALLS = re.compile(
    r"\b(?:phone|tel|telephone|mobile|cell|fax|desk|office|call|dial|text|reach|sms|whatsapp|handy|telefon\w*|"
    r"telefoon\w*|tél\w*|teléfono|rufnummer|contact|(?:my|her|his|our|your|their) number)\b"
    r"[^.\n]{0,24}$"
)


def _postal_addresses(text: str) -> Spans:
    for words, pattern in _STREETS:
        if _has_one(text, words):
            yield from (found.span() for found in pattern.finditer(text))


_CAPITAL = r"[A-ZÀ-ÖØ-ÞĀ-Ž][\w'’.-]*"
_STREETS = (
    (
        (" St", " Av", " R", " L", " D", " B", " W", " C", " P", " Sq", " T", " H", " A", " M"),
        re.compile(
            rf"\d{{1,5}}[A-Za-z]?,? (?:[NSEW]\.? )?(?:{_CAPITAL} ){{1,4}}(?:Street|St|Avenue|Ave|Road|Rd|"
            r"Lane|Ln|Drive|Dr|Boulevard|Blvd|Way|Court|Ct|Place|Pl|Square|Sq|Terrace|Parkway|Pkwy|"
            r"Highway|Hwy|Crescent|Close|Circle|Trail|Alley|Row|Mews)\b\.?"
            r"(?:,? (?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor)\.? ?#?\d{1,5}\w?)?"
        ),
    ),
    (
        ("Ap", "Suite", "Ste", "Flat", "Box", "PO "),
        re.compile(
            r"(?:Apt|Apartment|Suite|Ste|Flat)\.? #?\d{1,5}\b|P\.? ?O\.? Box \d{1,6}"
            r"|\b(?:APO|FPO|DPO),? A[AEP] \d{5}\b"
        ),
    ),
    (
        (
            "str",
            "gasse",
            "allee",
            "platz",
            "weg",
            "ufer",
            "damm",
            "laan",
            "gracht",
            "plein",
            "gat",
            "väg",
            "gade",
            "ve",
            "katu",
            "tie",
            "kuja",
            "polku",
            "utca",
        ),
        re.compile(
            r"[A-ZÄÖÜÅÆØ][\wäöüßåæø-]*(?:straße|strasse|str\.|gasse|allee|platz|weg|ufer|damm|straat|"
            r"laan|gracht|plein|gatan|vägen|gade|vej|gata|veien|vegen|katu|tie|kuja|polku|utca) ?\d{1,4}"
            r"(?: ?[a-zA-Z]\b)?"
        ),
    ),
    (
        (
            "rue",
            "av",
            "boul",
            "place",
            "chemin",
            "imp",
            "all",
            "quai",
            "route",
            "cours",
            "Rue",
            "Av",
            "Boul",
            "Place",
            "Chemin",
        ),
        re.compile(
            r"\d{1,4}(?: ?(?:bis|ter))?,? (?:rue|avenue|boulevard|place|chemin|impasse|allée|quai|"
            rf"route|cours|Rue|Avenue|Boulevard|Place|Chemin) (?:d[eu]s? |de la |l['’])?{_CAPITAL}(?: {_CAPITAL})*"
        ),
    ),
    (
        (
            "Calle",
            "C/",
            "Av",
            "Plaza",
            "Paseo",
            "Rua",
            "Trav",
            "Praça",
            "Via",
            "Piazza",
            "Corso",
            "Largo",
            "ul",
            "Strada",
            "Ul",
        ),
        re.compile(
            r"\b(?:Calle|C/|Avenida|Av\.|Avda\.|Plaza|Paseo|Rua|Travessa|Praça|Via|Viale|Piazza|Corso|"
            rf"Largo|ulica|ul\.|Strada|Ulica) ?(?:d[aeio][is]? |del |della |la )*{_CAPITAL}(?: (?:d[aeio]s? )?{_CAPITAL})*"
            r",? (?:n[.º°]? ?)?\d{1,5}"
        ),
    ),
)


def _introduced_names(text: str) -> Spans:
    if _has_one(text, _INTRODUCED):
        for found in _NAME.finditer(text):
            yield found.start("name"), found.start("name") + len(found["name"].rstrip("."))


_INTRODUCED = (
    "Mr", "Ms", "Miss", "Dr", "Prof", "Herr", "Frau", "Mme", "Mlle", "Sr", "Señor", "Sig",
    "name", "heiße", "appelle", "llamo", ":", "Dear", "egards", "incerely", "Cheers", "Yours",
)  # fmt: skip


_NAME = re.compile(
    rf"(?:\b(?:Mr|Mrs|Ms|Miss|Dr|Prof|Herr|Frau|Mme|Mlle|Sra?|Señora?|Sig|Signora)\b\.? "
    r"|\b(?:[Mm]y|[Hh]is|[Hh]er|[Tt]heir|maiden|full) name(?:['’]s| is) |\b[Ii]ch heiße |\b[Jj]e m['’]appelle |\b[Mm]e llamo "
    r"|\b(?:Name|Patient|Customer|Employee|Client|Full name|Cardholder|Contact): ?"
    r"|\b(?:Dear|Sincerely,?|[Rr]egards,?|Cheers,?|Yours truly,?)\s{1,2})"
    rf"(?P<name>(?!(?:Sir|Madam|Customer|Team|All|Hiring|Editor|Friend|Manager)\b){_CAPITAL}(?: {_CAPITAL}){{0,3}})"
)

_DIGIT = re.compile(r"\d")
_WITHOUT_DIGITS: tuple[tuple[str, Callable[[str], Spans]], ...] = (
    ("private_key", _private_keys),
    ("api_key", _keys),
    ("password", _passwords),
    ("email", _mails),
    ("name", _introduced_names),
    ("name", names.find),
)
_RECOGNISERS = (
    *_WITHOUT_DIGITS[:-1],
    ("iban", _ibans),
    ("national_id", _lettered_ids),
    ("national_id", _numbers(_is_national_id)),
    ("us_ssn", _numbers(_is_us_ssn)),
    ("card", _numbers(_is_card)),
    ("ip_address", _machine_addresses),
    ("phone", _numbers(_is_phone)),
    ("national_id", _named_documents),
    ("address", _postal_addresses),
    _WITHOUT_DIGITS[-1],  # streets are called after people
)
