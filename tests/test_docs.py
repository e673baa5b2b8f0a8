"""The documentation says what the code does."""

import re
from pathlib import Path

import pytest
from django.core.management import get_commands

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SETTINGS = (ROOT / "config" / "settings.py").read_text()
# What tests/plugin.py and the supervisor read is no setting of an install.
READ = r'(?:env(?:\.\w+)?|positive|whole|choice)\(\s*"([A-Z][A-Z_0-9]+)"'


def test_every_variable_that_settings_read_is_documented_and_no_other() -> None:
    documented = set(re.findall(r"^\| `([A-Z_0-9]+)` \|", text_of("docs/settings.md"), re.M))

    assert documented == set(re.findall(READ, SETTINGS))


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#]+)", page.read_text())

    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_in_the_pages_exist(page: Path) -> None:
    text = page.read_text()
    commands = set(re.findall(r"manage\.py (\w+)", text)) - {"commands"}
    scripts = set(re.findall(r"\bscript/([\w-]+)", text))

    assert not commands - {*get_commands(), "up"}
    assert not [name for name in scripts if not (ROOT / "script" / name).is_file()]


def text_of(path: str) -> str:
    return (ROOT / path).read_text()
