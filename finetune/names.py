"""Find names of persons by lists of given and family names. Pure, no model.

The lists in finetune/name_lists are written by script/names; its LICENSE says whose they are.
docs/measurements.md says how often a name is missed, and how often what is found is none.
"""

# ruff: noqa: SIM905 – a list literal of these would be a hundred lines long

import re
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple
from unicodedata import combining, normalize

from kb import wordlists

Spans = Iterator[tuple[int, int]]


def find(text: str) -> list[tuple[int, int]]:
    """Give the places of names, in order.

    A given name with the family name behind it is one, a given name alone too, where it means
    nothing else; so is each part of a full name wherever else the text has it: "Lovelace said".
    """
    runs = list(_runs(text))
    full = [(run, start, end) for run in runs if run[1:] for start, end in _full_names(run)]
    inside = [word for run, start, end in full for word in run[start:end]]
    told = {word.known.key for word in inside if word.known.tells}
    taken = {word.start for word in inside}
    found = [(run[start].start, run[end - 1].end) for run, start, end in full]
    found += (
        (word.start, word.end)
        for run in runs
        for at, word in enumerate(run)
        if (word.known.key in told or _stands_alone(text, run, at))
        and word.start not in taken
        and not word.known.is_shouted
    )
    if not text.isascii():
        found += _without_capitals(text)
    return sorted(found)


class _Known(NamedTuple):
    """What the lists and its form say of a capitalised word, or of an initial: "J."."""

    key: str  # as in the lists
    is_given: bool
    is_surely_given: bool  # and means nothing else
    is_family: bool
    is_surely_family: bool
    is_common: bool  # may be something else
    is_barred: bool  # is never part of a name
    is_shouted: bool  # LIKE THIS
    is_initial: bool
    tells: bool  # once part of a full name, it is a name wherever it stands


class _Word(NamedTuple):
    start: int
    end: int
    known: _Known


Run = Sequence[_Word]
_CAPITAL = "[A-ZÀ-ÖØ-ÞĀ-ɏͰ-ԯԱ-ՖḀ-῿]"
_LETTER = r"[^\W\d_\u3000-\uffff]"  # no Chinese, which follows without a blank
_CASED = rf"{_CAPITAL}{_LETTER}*(?:(?:['’](?!s\b)|[-‐]){_LETTER}+)*"
_INITIALS = r"(?:[A-ZÀ-ÖØ-Þ]\.[ -]?){1,4}"
_PARTICLES = (
    "van|von|der|den|de|het|ten|ter|la|las|los|di|da|dos|das|do|du|del|della|bin|ibn|ben|bint|al|"
    "el|af|av|zu|zur|y|ó|ní"
)
# "Ada van der Berg", "J. R. Bloggs": what one blank divides, particles between.
_RUN = re.compile(
    rf"(?:{_INITIALS}|{_CASED})(?:(?:(?<=[ -])| (?:(?:{_PARTICLES}) ){{0,3}})(?P<further>{_INITIALS}|{_CASED}))*"
)
_WORD = re.compile(rf"[A-ZÀ-ÖØ-Þ]\.(?![^\W\d_]{{2}})|{_CASED}")


def _runs(text: str) -> Iterator[Run]:
    """Give what stands in capitals side by side."""
    for run in _RUN.finditer(text):
        start, end = run.span()
        if text[start - 1 : start].isalnum() or text[end : end + 1].isdigit():
            continue
        if run.lastindex:
            words = _WORD.finditer(run[0])
            yield [_Word(start + w.start(), start + w.end(), _looked_up(w[0])) for w in words]
        else:
            yield [_Word(start, end, _looked_up(run[0]))]


@lru_cache(maxsize=20_000)
def _looked_up(text: str) -> _Known:
    key = text.lower().replace("’", "'").replace("‐", "-")
    parts = [part for part in re.split("[-']", key) if len(part) > 1]
    lists, forms = _lists(), re.split("[-‐]", text)
    is_titled = all(form[:1].isupper() for form in forms)
    is_given = _is_in(lists.given, key, key.split("-"))
    # "Tämä" is no Tama, but "Sinéad O'Connor" is found where the lists have Sinead.
    is_accented = not is_given and _is_in(lists.given, _plain(key), ())
    is_common = is_accented or len(key) < 3 or _is_in(lists.common, key, parts)
    is_plain = text.isupper() or all(form[1:] == form[1:].lower() for form in forms)
    is_barred, is_initial = key in _BARRED, len(text) == 1 or text.endswith(".")
    is_given = (is_given or is_accented) and is_titled and not is_barred
    is_family = _is_in(lists.family, key, parts) and is_titled
    return _Known(
        key=key,
        is_given=is_given,
        is_surely_given=is_given and not is_common and is_plain,  # not "RAs"
        is_family=is_family,
        is_surely_family=is_family and not is_common and not is_barred,
        is_common=is_common,
        is_barred=is_barred,
        is_shouted=text.isupper() and not is_initial,
        is_initial=is_initial,
        tells=not is_common and not is_initial,
    )


def _is_in(names: frozenset[str], key: str, parts: Sequence[str]) -> bool:
    """Tell whether a name or all parts of a double name are listed."""
    return key in names or (bool(parts) and all(part in names for part in parts))


def _plain(key: str) -> str:
    if key.isascii():
        return key
    return "".join(letter for letter in normalize("NFD", key) if not combining(letter))


class _Lists(NamedTuple):
    given: frozenset[str]
    family: frozenset[str]
    common: frozenset[str]


@cache
def _lists() -> _Lists:
    return _Lists(*map(_read, ("given", "family", "common")))


def _read(name: str) -> frozenset[str]:
    path = Path(__file__).with_name("name_lists") / f"{name}.txt"
    return frozenset(path.read_text(encoding="utf-8").split())


def _full_names(run: Run) -> Spans:
    """Give the places of full names in a run, counted in words."""
    at = 0
    while at < len(run):
        is_place = at and run[at - 1].known.key in _BEGIN_PLACES
        end = 0 if is_place else _end_of_name(run, at)
        if end:
            yield at, end
        at = end or at + 1


def _end_of_name(run: Run, start: int) -> int:
    """Give the place behind a full name that begins at `start`; 0 for none."""
    at = start + 1
    while at < min(len(run) - 1, start + 4) and run[at].known.is_initial:
        at += 1
    if at >= len(run) or not _fit(run[start].known, run[at].known, is_whole=len(run) == 2):
        return 0
    return _with_further_names(run, at + 1)


def _fit(first: _Known, last: _Known, *, is_whole: bool) -> bool:
    """Tell whether two words are a full name; `is_whole`: nothing else stands beside them."""
    if first.is_shouted or last.is_shouted:
        both = first.is_shouted and last.is_shouted
        return both and first.is_surely_given and last.is_surely_family
    if first.is_surely_given:  # no list need have the family name
        listed = last.is_family or last.is_given
        return not (last.is_initial or last.is_barred) and (listed or not last.is_common)
    if first.is_given or (first.is_initial and not first.is_barred):
        return last.is_surely_family
    return is_whole and first.is_surely_family and last.is_surely_given  # "Szabó Anna"


def _with_further_names(run: Run, end: int) -> int:
    """Go on over a second family name; 0 where the whole is called after somebody: "Hall School"."""
    for word in run[end : end + 2]:
        known = word.known
        if known.is_barred or known.is_common or known.is_shouted or known.is_initial:
            break
        if not (known.is_given or known.is_family or run[end - 1].known.is_given):
            break
        end += 1
    return 0 if end < len(run) and run[end].known.key in _CALLED_AFTER_SOMEBODY else end


def _stands_alone(text: str, run: Run, at: int) -> bool:
    return (
        run[at].known.is_surely_given
        and at == len(run) - 1
        and (at == 0 or run[at - 1].known.key in _OPENERS)
        and not text.endswith(_SAINTS, max(0, run[at].start - 5), run[at].start)
    )


_BEGIN_PLACES = frozenset("san santa santo saint são sao los las new fort lake mount port".split())
_SAINTS = ("St. ", "Ste. ", "Mt. ")
_CALLED_AFTER_SOMEBODY = frozenset(
    """inc ltd llc llp corp corporation co company gmbh ag plc group bank university college school
    hospital clinic institute center centre foundation museum library airport station street avenue
    road lane drive boulevard square park garden gardens bridge river lake falls mountain mount
    island islands bay beach county city town village valley hills heights church cathedral chapel
    abbey palace castle house hotel tower towers theatre theater stadium arena prize award awards
    medal cup act law theorem equation theory syndrome disease day week festival society association
    press times post journal magazine news project program programme team club fc united partners
    associates brothers bros sons consulting services products state states republic kingdom empire
    dynasty era revolution war treaty""".split()
)  # fmt: skip
_OPENERS = (
    wordlists.SENTENCE_OPENERS
    | frozenset().union(*wordlists.STOP_WORDS.values())
    | wordlists.TITLES
    | frozenset({"hi", "hello", "hey", "dear", "thanks", "best", "love", "cheers", "regards"})
)
# Stop words of one language may be names in another.
_ALSO_NAMES = wordlists.MONTHS | {"will", "allen", "dan", "mia", "sue", "uma"}
_BARRED = (_CALLED_AFTER_SOMEBODY | _OPENERS) - _ALSO_NAMES


def _without_capitals(text: str) -> Spans:
    """Find names in scripts without capitals: both names must be listed and stand together."""
    if _EASTERN.search(text):
        yield from (found.span() for found in _eastern_names().finditer(text))
    last = None
    for word in _UNCASED.finditer(text):
        follows = last and text[last.end() : word.start()] == " "
        if last and follows and last[0] in _lists().given and word[0] in _lists().family:
            yield last.start(), word.end()
            last = None
        else:
            last = word


# Chinese, Japanese, Korean; Hebrew to Tibetan, and Georgian.
_EASTERN = re.compile("[\u3400-\u9fff\uac00-\ud7a3]")
_UNCASED = re.compile("[\u0591-\u060b\u061c-\u0963\u0966-\u0fff\u10d0-\u10ff]+")


@cache
def _eastern_names() -> re.Pattern[str]:
    """Match a family name and a given name of two characters or more: 王建华, 佐藤 太郎, 김민수."""
    family = "|".join(sorted(filter(_EASTERN.match, _lists().family), key=len, reverse=True))
    listed = _lists().given - _lists().common
    given = "|".join(name for name in listed if _EASTERN.match(name) and len(name) > 1)
    return re.compile(f"(?:{family})[ \u3000]?(?:{given})")
