"""What cannot work is said at the start."""

from pathlib import Path

from pytest_django import Settings

from finetune.checks import evaluation_can_be_read


def said(settings: Settings, **values: object) -> list[str]:
    for name, value in values.items():
        setattr(settings, name, value)
    return [found.msg for found in evaluation_can_be_read()]


def test_rules_and_suites_that_can_be_read_are_fine(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text("{}")
    assert (
        said(settings, EVALUATION={"margin": 0.1}, SAFETY_SUITES=str(tmp_path / "own.json")) == []
    )


def test_a_wrong_rule_is_named(settings: Settings) -> None:
    assert said(settings, EVALUATION={"marging": 0.1}) == ["EVALUATION has no rule “marging”."]
    (sentence,) = said(settings, EVALUATION={"margin": "much"})
    assert "margin must be a number" in sentence


def test_suites_that_are_not_there_are_named(settings: Settings, tmp_path: Path) -> None:
    (sentence,) = said(settings, SAFETY_SUITES=str(tmp_path / "none.json"))
    assert sentence.startswith("SAFETY_SUITES: The suites none.json cannot be read")
