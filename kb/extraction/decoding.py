"""Bytes to text, whatever the encoding.

Order: a byte order mark, UTF-16 and UTF-32 without one (by where the zeros are), strict UTF-8,
what the file says of itself, then charset-normalizer's guess. Never fails: the last resort is
Windows-1252 with what it leaves undefined dropped.
"""

import codecs
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
    guess = from_bytes(data[:SAMPLE]).best()
    guessed = _decode_as(data, guess.encoding if guess else "", "replace")
    return guessed if guessed is not None else data.decode("cp1252", "ignore")


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
