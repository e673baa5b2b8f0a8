import pytest

from kb import languages


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is the weather like in the north?", "english"),
        ("Wo ist der Hund, und was macht er?", "german"),
        ("Le chat est sur la table avec les enfants.", "french"),
        ("La casa es muy grande y está en el centro.", "spanish"),
        ("Il gatto è sul tavolo della cucina.", "italian"),
        ("O gato não está em casa, mas na rua.", "portuguese"),
        ("De kat zit op de mat en het is niet leuk.", "dutch"),
        ("Det är en bra dag och jag är inte hemma.", "swedish"),
        ("Kedi bir hayvandır ve çok güzel.", "turkish"),
        ("Привет, как дела?", "russian"),
        ("Шта је ово? Љубав је лепа.", "serbian"),
        ("Καλημέρα σε όλους", "greek"),
        ("مرحبا بكم في هذا المكان", "arabic"),
        ("हिन्दी एक भाषा है", "hindi"),
        ("Це є Україна, і її люди.", "simple"),
        ("Kot nie jest na stole i to jest dobre.", "simple"),
        ("猫が好きです", "simple"),
        ("这是一个中文句子 with English", "simple"),
        ("ภาษาไทย", "simple"),
        ("한국어 문장입니다", "simple"),
    ],
)
def test_a_sentence_tells_its_language(text: str, language: str) -> None:
    assert languages.detect(text, default="") == language


@pytest.mark.parametrize("text", ["", "Berlin", "def foo(bar): return 1", "12 345", "| a | b |"])
def test_too_little_text_says_nothing(text: str) -> None:
    assert languages.detect(text, default="dutch") == "dutch"


def test_every_language_is_one_that_postgresql_knows(db: None) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT cfgname FROM pg_ts_config")
        known = {name for (name,) in cursor.fetchall()}

    assert known >= languages.NAMES
