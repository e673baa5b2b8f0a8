"""Near duplicates share a band; other pairs hardly ever do."""

import random

import numpy as np

from finetune import minhash
from finetune.quality import measure

WORDS = [f"{a}{b}{c}" for a in "bcdfglmnprst" for b in "aeiou" for c in "bdklmnrst"]


def text(rng: random.Random, length: int) -> list[str]:
    return [rng.choice(WORDS) for _ in range(length)]


def changed(rng: random.Random, words: list[str], count: int) -> list[str]:
    copy = list(words)
    for place in rng.sample(range(len(words)), count):
        copy[place] = rng.choice(WORDS)
    return copy


def compared(one: list[str], other: list[str]) -> tuple[float, bool]:
    """Give the similarity of two outputs under one question, and whether a band is shared."""
    sides = [measure(instruction=" ".join(words)).bands for words in (one, other)]
    alike = minhash.similarity(minhash.fields(one, [], []), minhash.fields(other, [], []))
    return alike, not set(sides[0]).isdisjoint(sides[1])


def test_what_is_nearly_the_same_shares_a_band() -> None:
    rng = random.Random(1)
    near = missed = 0
    for _ in range(400):
        words = text(rng, rng.randint(12, 120))
        alike, shared = compared(words, changed(rng, words, max(1, len(words) // 16)))
        near += alike >= minhash.NEAR
        missed += alike >= minhash.NEAR and not shared
    assert near > 300
    assert missed <= near // 100


def test_other_texts_hardly_ever_share_a_band() -> None:
    rng = random.Random(2)
    shared = sum(compared(text(rng, 60), text(rng, 60))[1] for _ in range(300))
    assert shared <= 2


def test_a_word_less_in_ten_is_still_near() -> None:
    words = ["when", "does", "the", "big", "glacier", "of", "the", "north", "lose", "its", "ice"]
    assert compared(words, words[:-1])[0] >= minhash.NEAR


def test_two_questions_about_one_passage_are_not_near() -> None:
    passage = [str(n) for n in range(300)]
    one = minhash.fields(["who", "found", "the", "glacier"], passage, ["bob"])
    other = minhash.fields(["when", "did", "the", "ice", "melt"], passage, ["august"])
    assert minhash.similarity(one, other) < minhash.NEAR


def test_one_question_with_two_answers_is_near() -> None:
    one = minhash.fields(["who", "found", "the", "glacier"], [], ["it", "was", "bob"])
    other = minhash.fields(["who", "found", "the", "glacier"], [], ["nobody", "ever", "knew"])
    assert minhash.similarity(one, other) == 1.0
    assert 0.2 < minhash.overlap(one, other) < 0.6
    assert minhash.overlap(one, one) == 1.0


def test_one_classification_of_two_texts_is_not_near() -> None:
    task = ["say", "whether", "this", "text", "is", "friendly", "or", "not"]
    one = minhash.fields(task, ["what", "a", "lovely", "day", "it", "is"], ["friendly"])
    other = minhash.fields(task, ["thank", "you", "for", "all", "your", "help"], ["friendly"])
    assert minhash.similarity(one, other) < minhash.NEAR


def test_bands_are_the_same_in_every_process_and_fit_the_column() -> None:
    found = measure(instruction="When does the glacier melt?", output="In August.").bands
    assert found[:2] == BANDS
    assert len(found) == 32
    assert all(0 <= key < 2**63 for key in found)


def test_case_punctuation_and_spaces_do_not_matter() -> None:
    one = measure(instruction="When does it melt?", output="In August.").bands
    assert one == measure(instruction="when  does it MELT", output="in august").bands


def test_chinese_is_compared_by_characters() -> None:
    one = "冰川在八月失去大部分的冰，因为那时候天气最热。"
    assert minhash.tokens("冰川ab c") == ["冰", "川", "ab", "c"]
    alike, shared = compared(minhash.tokens(one), minhash.tokens(one.replace("八月", "七月")))
    assert alike >= minhash.NEAR
    assert shared


def test_a_huge_text_is_hashed_in_bounded_memory() -> None:
    hashes = minhash.shingles([str(n) for n in range(200_000)])
    assert len(minhash.bands(hashes, hashes[:0], hashes[:0])) == 32
    assert hashes.dtype == np.uint64


# Stored with every pair: another value means that all pairs must be measured again.
BANDS = [748152590, 8343747261]
