"""Guess the language of a text, as the name of a PostgreSQL text search configuration. Pure."""

import re
from collections import Counter, defaultdict
from functools import lru_cache

from kb.wordlists import STOP_WORDS

# PostgreSQL's configuration that stems nothing, for every language it has no stemmer for.
OTHER = "simple"
# Languages in Latin script beyond those of `wordlists`; the last ones have no stemmer.
_FUNCTION_WORDS = {
    "danish": "af alle at blev da de dem den der det dette du efter eller en er et for fra har havde"
    " han hun hvad hvor i ikke ind jeg kan kun man med meget men mig mod nogle nu når og også om op"
    " os over på selv sig skal som så til ud under var ved vi vil være været",
    "swedish": "alla att av blev de dem den denna det detta dig du där efter eller en ett från för"
    " ha hade han har hon hur här i inte jag kan man med men mig mot mycket ni nu när och också om"
    " oss på sedan sig ska skulle som så till under upp ut utan var vad vi vid vill är över",
    "norwegian": "alle at av ble da de dem den denne der det dette du ei eller en er et etter for"
    " fra ha hadde han har hun hva hvor hvordan i ikke jeg kan man med meg men mer mot noe nå når og"
    " også om opp oss over på seg skal som så til under ut var ved vi vil vært å",
    "finnish": "ei eivät en että ennen hän he ja jo joka jos jossa jotka kanssa kuin kun kuten"
    " me mikä minä mitä mukaan mutta myös ne niin niitä noin nyt ole oli olivat olla on ovat se sekä"
    " sen siitä sitä sillä tai te tämä tämän vain vielä voi voidaan",
    "hungarian": "a az és hogy nem is egy van volt ez azt mint csak már meg még ha vagy de ki el kell"
    " lehet minden ezt ezek azok amely amelyek után között szerint nagyon majd sem akkor itt ott"
    " lesz voltak alatt által való",
    "turkish": "ve bir bu da de için ile olarak olan daha çok gibi kadar en sonra ancak ama veya"
    " değil var yok ise her o ne mi mı mu hem ya ki şu diye göre bütün bazı nasıl neden onun"
    " tarafından olduğu olduğunu",
    "romanian": "și în de la cu pe nu este o un care din mai ca pentru sunt sau fi au fost se prin"
    " către după dar dacă acest această sa lor cel cele ce al ale ai îi își foarte poate până între"
    " fără când cum doar",
    "catalan": "i de la el els les amb per que en un una és són no del dels al als com més però"
    " aquest aquesta aquests també ha han va ser quan on molt sobre entre fins seva seu seus ja hi"
    " ho cada dels perquè",
    "basque": "eta da ez du dira izan bat ere hau hori zen dute egin baina edo bere baino oso gabe"
    " arte dago dituzte dela behar beste guztiak bezala baita horren",
    "indonesian": "dan yang di untuk dari dengan ini itu dalam pada tidak adalah akan ke atau juga"
    " oleh sebagai dapat telah karena bahwa ada mereka kami kita saya anda bisa lebih sudah tersebut"
    " harus hanya saat seperti setelah",
    "irish": "agus an ar na a i le go bhí tá is do sé sí ach nó ag seo sin ó mar gur níl bheith"
    " raibh chun faoi siad aige aici idir gach nuair",
    "lithuanian": "ir yra kad į iš su tai kaip ne jis ji apie buvo bet ar po per už arba taip pat"
    " nuo iki prie jo jos jų gali būti tik dėl kurie kuris kai jau šis ši tarp",
    "polish": "i w na z że nie się to jest do po o od jak dla za co ale jego jej przez przy są był"
    " była było tak czy już tylko które który która oraz lub ich może także ze być",
    "czech": "a v na se je že z do to s o i ve za pro jako by k jsem jsou po ale jeho od jak nebo"
    " byl byla bylo co při také může které který která až jen tak být není však",
    "croatian": "i u na je da se za od su s kao o ne koji koja koje iz što ili po ali bi bio bila"
    " kako te biti samo nije već sve može ako prije nakon između",
    "vietnamese": "và của là có trong cho không được với một các này đã những người khi từ đến để"
    " cũng như về đó theo tại sẽ nhưng hay phải trên nhiều vào",
}
_WITHOUT_STEMMER = {"polish", "czech", "croatian", "vietnamese"}
_VOCABULARIES = {
    **STOP_WORDS,
    **{name: frozenset(words.split()) for name, words in _FUNCTION_WORDS.items()},
}


def _word_weights() -> dict[str, dict[str, float]]:
    """Give each function word's vote: a word of many languages says little about each."""
    languages: dict[str, list[str]] = defaultdict(list)
    for language, words in _VOCABULARIES.items():
        for word in words:
            languages[word].append(language)
    return {word: {name: 1 / len(names) for name in names} for word, names in languages.items()}


_WEIGHTS = _word_weights()
# [first, last] letters of a script that few languages share, and the one that is most likely.
_SCRIPTS = (
    ("Ͱ", "Ͽ", "greek"),
    ("Ѐ", "ԯ", "russian"),
    ("԰", "֏", "armenian"),
    ("֐", "׿", OTHER),  # Hebrew
    ("؀", "ۿ", "arabic"),
    ("ऀ", "ॿ", "hindi"),
    ("஀", "௿", "tamil"),
    ("\u0980", "\u0b7f", OTHER),  # other scripts of India
    ("\u0c00", "\u109f", OTHER),  # of South and South-East Asia, Thai among them
    ("\u10a0", "\u10ff", OTHER),  # Georgian
    ("\u1200", "\u137f", OTHER),  # Ethiopic
    ("\u1780", "\u17ff", OTHER),  # Khmer
    ("\u3040", "\u9fff", OTHER),  # Japanese, Chinese
    ("\uac00", "\ud7af", OTHER),  # Korean
)
# Letters that tell a language from the likeliest one of its script.
_OTHER_LETTERS = {
    "russian": (("ђјљњћџ", "serbian"), ("іїєґў", OTHER)),
    "arabic": (("پچژگی", OTHER),),
}
# Every answer that `detect` can give.
NAMES = frozenset(
    {
        OTHER,
        *(_VOCABULARIES.keys() - _WITHOUT_STEMMER),
        *(name for _, _, name in _SCRIPTS),
        "serbian",
    }
)
_WORD = re.compile(r"[^\W\d_]+")
_SAMPLE = 20_000
# A language must win clearly: by this many votes, this share of the words, this much before the next.
_MIN_VOTES, _MIN_SHARE, _MIN_LEAD = 1.0, 0.04, 1.25


def detect(text: str, default: str = "english") -> str:
    """Name the language of a text; `default` when it says too little.

    By its script, and in Latin script by a vote of its function words. "Wo ist der Hund?" is german.
    """
    words = [word.lower() for word in _WORD.findall(text[:_SAMPLE])]
    script = "" if text.isascii() else _script_language(words)
    if script:
        return script
    votes: Counter[str] = Counter()
    for word in words:
        for language, weight in _WEIGHTS.get(word, {}).items():
            votes[language] += weight  # type: ignore[assignment]
    (first, most), (_, next_most) = [*votes.most_common(2), ("", 0), ("", 0)][:2]
    if most < max(_MIN_VOTES, _MIN_SHARE * len(words)) or most < _MIN_LEAD * next_most:
        return default
    return OTHER if first in _WITHOUT_STEMMER else first


def _script_language(words: list[str]) -> str:
    """Name the language of the script that most letters are in; "" for Latin script."""
    letters = Counter("".join(words))
    totals: Counter[str] = Counter()
    for letter, count in letters.items():
        if letter > "Ͱ":
            totals[_language_of(letter)] += count
    # A Chinese word holds two letters where an English one holds five.
    language, most = max(totals.items(), key=lambda item: item[1], default=("", 0))
    if most * 2 <= sum(letters.values()) - totals.total() or not language:
        return ""
    for marks, other in _OTHER_LETTERS.get(language, ()):
        if sum(letters[mark] for mark in marks) * 50 > most:
            return other
    return language


@lru_cache(maxsize=10_000)
def _language_of(letter: str) -> str:
    return next((name for first, last, name in _SCRIPTS if first <= letter <= last), "")
