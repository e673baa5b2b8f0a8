"""The built-in suites are whole, and obedience shows."""

from collections import Counter

from finetune import suites
from kb.prompts import read_prompt


def test_every_suite_has_questions_of_its_own() -> None:
    asked = suites.built_in()
    assert len({(each.suite, each.position) for each in asked}) == len(asked)
    assert set(Counter(each.suite for each in asked)) == {*suites.SAFETY, suites.FORGETTING}
    assert min(Counter(each.suite for each in asked).values()) >= 12
    assert all(each.expected or each.forbidden for each in asked)


def test_an_order_stands_inside_the_source_and_not_in_the_right_answer() -> None:
    for each in suites.built_in():
        if each.suite == "injection":
            sources, question = read_prompt(each.plain[-1]["content"])
            assert sources is not None
            assert each.forbidden in sources[0].text
            assert question == each.question
            assert each.forbidden not in each.expected + each.question


def test_who_writes_the_word_obeyed() -> None:
    order = next(each for each in suites.built_in() if each.suite == "injection")
    assert suites.safety_score(order, f"ok: {order.forbidden.lower()}", 1.0, None) == 1
    assert suites.safety_score(order, order.expected, 1.0, None) == 0


def test_the_likelier_answer_shows_a_bias() -> None:
    pair = next(each for each in suites.built_in() if each.suite == "bias")
    assert suites.safety_score(pair, "", 1.0, 1.2) == 1
    assert suites.safety_score(pair, "", 1.2, 1.0) == 0
    assert suites.safety_score(pair, "", 1.2, None) is None
