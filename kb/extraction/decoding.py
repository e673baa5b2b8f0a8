"""Bytes to text, whatever the encoding.

Order: a byte order mark, UTF-16 and UTF-32 without one (by where the zeros are), strict UTF-8,
what the file says of itself, then charset-normalizer's guess. Never fails: the last resort is
Windows-1252 with what it leaves undefined dropped.
"""

import codecs
import re
from collections.abc import Callable
from encodings.aliases import aliases

from charset_normalizer import from_bytes

BYTE_ORDER_MARKS = (  # the longer ones first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Guesses that are as often wrong as right when the text is French, German, Spanish or Swedish,
# and the words, without accents, that tell the languages for which they are right.
LOOKS_WESTERN = frozenset(
    ["cp1250", "cp1252", "cp1254", "cp1257", "cp1258", "latin_1", "mac_latin2", "mac_roman"]
    + [f"iso8859_{number}" for number in (2, 3, 4, 9, 10, 13, 14, 15, 16)]
)
EASTERN_WORDS = {
    "cp1250": frozenset([b"az", b"egy", b"hogy", b"nem", b"volt", b"este", b"din", b"sau", b"pe"]),
    "cp1254": frozenset([b"ve", b"bir", b"bu", b"olarak", b"daha", b"ile", b"gibi"]),
}
SIGN_IN_WORD = re.compile("[a-z][\u00b3\u00b9\u00ba\u00bf\u00b6\u00a3\u00a5\u0178]|\u0178[a-z]")
WIDE_CODECS = [
    *("big5", "big5hkscs", "cp932", "cp949", "cp950", "gb18030", "gb2312", "gbk", "hz", "johab"),
    *("euc_jis_2004", "euc_jisx0213", "euc_jp", "euc_kr"),
    *("shift_jis", "shift_jis_2004", "shift_jisx0213"),
]
MOSTLY_ASCII = 0.75  # share of the bytes; of Chinese or Korean text it is far less
KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa]")
SAMPLE = 64 * 1024  # bytes that the guess looks at
NO_TEXT_CODECS = frozenset(
    [
        "base64_codec",
        "bz2_codec",
        "hex_codec",
        "quopri_codec",
        "rot_13",
        "uu_codec",
        "zlib_codec",
        "mbcs",
        "oem",
    ]
)

for _name in sorted(set(aliases.values()) - NO_TEXT_CODECS):  # later the disk is closed
    codecs.lookup(_name)
for _name in ("punycode", "raw-unicode-escape", "unicode-escape", "undefined", "cp874", "cp1006"):
    codecs.lookup(_name)


def decode(data: bytes, *, hint: Callable[[bytes], str] = lambda data: "") -> str:
    """Give the text of `data`; `hint` reads the name of an encoding from the start of it."""
    for mark, name in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace")
    wide = _wide_encoding(data[:SAMPLE])
    if wide:
        return data.decode(wide, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start > SAMPLE // 2 and _is_mostly_utf8(data):
            return data.decode("utf-8", "replace")
    declared = _decode_as(data, hint(data))
    if declared is not None:
        return declared
    guessed = _decode_as(data, _guess(data[:SAMPLE]), "replace")
    return guessed if guessed is not None else data.decode("cp1252", "ignore")


def encoding_of(sample: bytes) -> str:
    """Name the encoding of a file that is read as a stream, by a telling stretch of it.

    Where UTF-8 breaks, what is right around it says whether it is UTF-8 with a fault.
    """
    for mark, name in BYTE_ORDER_MARKS:
        if sample.startswith(mark):
            return name
    wide = _wide_encoding(sample)
    if wide:
        return wide
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
        return "utf-8"
    except UnicodeDecodeError:
        text = sample.decode("utf-8", "replace")
        broken = text.count("\ufffd")
        accents = sum(not character.isascii() for character in text) - broken
        name = "utf-8" if accents > 10 * broken else _guess(sample[:SAMPLE])
    return name if _decode_as(sample, name, "replace") is not None else "cp1252"


def _guess(sample: bytes) -> str:
    """Ask charset-normalizer, and correct it where it is known to pick a neighbour."""
    for name in ("euc_jp", "shift_jis"):
        japanese = _decode_as(sample[: len(sample) // 2 * 2], name) or ""
        if len(KANA.findall(japanese)) > 0.15 * len(japanese):
            return name
    is_latin = sum(byte < 128 for byte in sample) > MOSTLY_ASCII * len(sample)
    guess = from_bytes(sample, cp_exclusion=WIDE_CODECS if is_latin else None).best()
    if guess is None or guess.encoding not in LOOKS_WESTERN:
        return guess.encoding if guess else ""
    western = from_bytes(sample, cp_isolation=["cp1252"]).best()
    if western is None:
        return str(guess.encoding)
    if SIGN_IN_WORD.search(str(western)):
        eastern = from_bytes(sample, cp_isolation=["cp1250", "iso8859_2"]).best()
        return str((eastern or guess).encoding)
    words = set(re.findall(rb"[a-z]+", sample.lower()))
    found = {name: len(words & common) for name, common in EASTERN_WORDS.items()}
    name = max(found, key=lambda key: found[key])
    return name if found[name] >= 2 else "cp1252"


def _decode_as(data: bytes, name: str, errors: str = "strict") -> str | None:
    """Decode, or give None for an unknown name, a codec that is not for text, or a wrong one."""
    try:
        codec = codecs.lookup(name)
        if not name or codec.name.replace("-", "_") in NO_TEXT_CODECS:
            return None
        return data.decode(codec.name, errors)
    except (LookupError, ValueError):
        return None


def _wide_encoding(sample: bytes) -> str:
    """Recognise UTF-16 and UTF-32 of mostly Latin text by its zero bytes."""
    if len(sample) < 8:
        return ""
    zeros = [sample[offset::4].count(0) / max(1, len(sample[offset::4])) for offset in range(4)]
    if zeros[0] > 0.9 and zeros[1] > 0.9 and zeros[3] < 0.1:
        return "utf-32-be"
    if zeros[3] > 0.9 and zeros[2] > 0.9 and zeros[0] < 0.1:
        return "utf-32-le"
    even, odd = (zeros[0] + zeros[2]) / 2, (zeros[1] + zeros[3]) / 2
    if odd > 0.5 and even < 0.1:
        return "utf-16-le"
    if even > 0.5 and odd < 0.1:
        return "utf-16-be"
    return ""


def _is_mostly_utf8(data: bytes) -> bool:
    """Forgive a few broken bytes in a long file that is UTF-8 otherwise."""
    broken = data.decode("utf-8", "replace").count("\ufffd")
    return broken <= len(data) // 1000
