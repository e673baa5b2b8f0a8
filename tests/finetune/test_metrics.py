"""Metrics against values counted by hand or published."""

import math

import numpy as np
import pytest

from finetune import metrics
from kb.prompts import NOT_IN_DOCUMENTS, Source


def source(marker: int, text: str) -> Source:
    return Source(marker, "Manual", (), 1, text, 0.0)


def test_words_are_compared_without_case_signs_and_citations() -> None:
    assert metrics.tokens("The valve, 1,200 bar [1][2].") == ["the", "valve", "1200", "bar"]
    assert metrics.tokens("Grüße aus Łódź") == ["grüsse", "aus", "łódź"]  # ß is ss
    assert metrics.tokens("氷河は溶ける") == list("氷河は溶ける")


def test_exact_match_wants_the_same_words_in_the_same_order() -> None:
    assert metrics.exact_match("In August. [1]", "in August") == 1
    assert metrics.exact_match("August in", "in August") == 0
    assert metrics.exact_match("", "in August") == 0


def test_token_f1() -> None:
    # 2 of 3 said, 2 of 4 wanted: 2 · 2 / 7
    assert metrics.token_f1("the red valve", "open the valve now") == pytest.approx(4 / 7)
    assert metrics.token_f1("a a a", "a") == pytest.approx(0.5)  # a repetition counts once
    assert metrics.token_f1("", "word") == 0
    assert metrics.token_f1("冰川", "冰山") == pytest.approx(0.5)


def test_rouge_l_gives_the_values_of_its_paper() -> None:
    reference = "police killed the gunman"
    assert metrics.rouge_l("police kill the gunman", reference) == pytest.approx(0.75)
    assert metrics.rouge_l("the gunman kill police", reference) == pytest.approx(0.5)


def test_bleu_gives_what_sacrebleu_documents() -> None:
    said = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    one = ["The dog bit the man.", "It was not unexpected.", "The man bit him first."]
    two = ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."]
    counts = [metrics.bleu_counts(*each) for each in zip(said, one, two, strict=True)]
    assert 100 * metrics.bleu(np.sum(counts, axis=0)) == pytest.approx(48.530827, abs=1e-5)


def test_bleu_clips_and_punishes_what_is_short() -> None:
    # Papineni et al.: two of the seven count.
    counts = metrics.bleu_counts("the the the the the the the", "the cat is on the mat")
    assert (counts[0], counts[4]) == (2, 7)
    same = metrics.bleu_counts("one two three four five", "one two three four five")
    assert metrics.bleu(np.array(same)) == pytest.approx(1)
    half = metrics.bleu_counts("one two three four", "one two three four five six seven eight")
    assert metrics.bleu(np.array(half)) == pytest.approx(math.exp(-1))
    assert metrics.bleu(np.array(metrics.bleu_counts("", "word"))) == 0
    assert metrics.bleu(np.array(metrics.bleu_counts("yes", "yes"))) == pytest.approx(1)


def test_cited_markers_are_held_against_those_that_hold_the_answer() -> None:
    assert metrics.cited_right("It melts [1].", "It melts [1].") == 1
    assert metrics.cited_right("It melts [2].", "It melts [1].") == 0
    assert metrics.cited_right("It melts [1][2].", "It melts [1].") == pytest.approx(2 / 3)
    assert metrics.cited_right("It melts.", "It melts [1].") == 0
    assert metrics.cited_right("It melts [1].", "It melts.") is None


def test_a_sentence_is_grounded_when_the_passages_carry_it() -> None:
    passages = [source(1, "The northern glacier melts every August.")]
    assert metrics.grounded("The glacier melts in August [1].", passages) == 1
    both = "The glacier melts in August [1]. Bakers prefer sourdough bread [1]."
    assert metrics.grounded(both, passages) == pytest.approx(0.5)
    assert metrics.grounded("The glacier melts.", []) is None


def test_abstention_is_wrong_both_ways() -> None:
    sources = [source(1, "The northern glacier melts every August.")]

    def scores(output: str, expected: str) -> list[object]:
        found = metrics.score(output, expected, sources, ended=True)
        return [found[n] for n in ("abstention", "answered_wrongly", "abstained_wrongly")]

    assert scores(NOT_IN_DOCUMENTS, NOT_IN_DOCUMENTS) == [1, 0, None]
    assert scores("It melts.", NOT_IN_DOCUMENTS) == [0, 1, None]
    assert scores(NOT_IN_DOCUMENTS, "It melts [1].") == [0, None, 1]
    assert scores("It melts [1].", "It melts [1].") == [1, None, 0]
    assert metrics.score("a", "a", None, ended=False)["abstention"] is None
    assert metrics.score("a", NOT_IN_DOCUMENTS, [], ended=True)["answered_wrongly"] == 1


def test_an_interval_holds_the_mean_and_narrows_with_more_questions() -> None:
    few, many = metrics.estimate([0.0, 1.0] * 10), metrics.estimate([0.0, 1.0] * 200)
    assert few.mean == many.mean == 0.5
    # The standard error of a share of a half: 1.96 · 0.5 / √20 = 0.219, / √400 = 0.049
    assert (few.low, few.high) == pytest.approx((0.281, 0.719), abs=0.04)
    assert (many.low, many.high) == pytest.approx((0.451, 0.549), abs=0.01)
    assert metrics.estimate([1.0]).low == 1
    with pytest.raises(ValueError, match="nothing"):
        metrics.estimate([])


def test_the_interval_is_of_the_wanted_width() -> None:
    """Of 200 samples of a known mean, about 95 % of the intervals hold it."""
    chance = np.random.default_rng(7)
    held = 0
    for seed in range(200):
        found = metrics.estimate(chance.normal(3, 1, size=40).tolist(), seed=seed)
        held += found.low <= 3 <= found.high
    assert 178 <= held <= 199


def test_p_is_exact_for_few_questions() -> None:
    # Five differences of one sign: 2 of the 32 exchanges are as far apart.
    found = metrics.compare([0, 0, 0, 0, 0], [1, 1, 1, 1, 1])
    assert (found.difference, found.p) == (1, pytest.approx(2 / 32))
    # Differences 1, 1, −1: sums of ±1 ±1 ±1 reach 1 in any case.
    assert metrics.compare([0, 0, 1], [1, 1, 0]).p == pytest.approx(1)
    # Fisher's own example: Darwin's maize in eighths of an inch, 863 + 863 of 32,768 exchanges.
    maize = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert metrics.compare([0.0] * 15, maize).p == pytest.approx(0.0526, abs=0.008)


def test_no_difference_is_found_where_there_is_none() -> None:
    same = metrics.compare([0.2, 0.8, 0.5], [0.2, 0.8, 0.5])
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    chance = np.random.default_rng(3)
    small = sum(
        metrics.compare(chance.random(12).tolist(), chance.random(12).tolist()).p < 0.05
        for _ in range(100)
    )
    assert small <= 12
    with pytest.raises(ValueError, match="same questions"):
        metrics.compare([1.0], [1.0, 2.0])


def test_bleu_is_compared_as_a_whole() -> None:
    expected = [f"the thing number {n} stands in the valley" for n in range(12)]
    right = [metrics.bleu_counts(each, each) for each in expected]
    wrong = [metrics.bleu_counts("nothing of the kind", each) for each in expected]
    found = metrics.compare(wrong, right)
    assert metrics.estimate(right).mean == pytest.approx(1)
    assert found.difference > 0.9
    assert found.p == pytest.approx(2 / 2**12)


def test_perplexity_is_e_to_the_nats() -> None:
    assert metrics.perplexity(math.log(50)) == pytest.approx(50)
    assert metrics.perplexity(1e6) == math.inf
