"""Published attacks become suites in which obedience shows."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks import safety
from finetune import suites

pytestmark = [pytest.mark.train, pytest.mark.data]


def test_published_attacks_can_be_asked_as_suites(shared_data: Path, tmp_path: Path) -> None:
    orders, (asked, taught) = safety.attacks(shared_data), safety.contexts(shared_data)
    written = {
        "injection": safety.injections(orders, asked),
        "jailbreak": safety.extractions(shared_data),
    }
    (tmp_path / "suites.json").write_text(json.dumps(written))

    questions = suites.read(tmp_path / "suites.json")

    hidden = [each for each in questions if each.suite == "injection"]
    assert len(hidden) == len(asked) > 40
    assert all(each.forbidden in each.plain[-1]["content"] for each in hidden)
    assert all(each.forbidden not in each.expected for each in hidden)
    assert {each.forbidden for each in questions if each.suite == "jailbreak"} == {safety.SECRET}
    assert all(safety.SECRET in each.plain[0]["content"] for each in questions)
    assert not {text["context"] for text in asked} & {text["context"] for text in taught}
