"""Markdown: read as it is shown."""

import contextlib

import pytest

from kb.extraction.unreadable import DocumentUnreadable
from kb.pages import BlockKind
from tests.kb.extraction.conftest import Extract, blocks_of, texts_of


def test_markup_goes_and_structure_stays(extract: Extract) -> None:
    text = """# Ice *and* rock

Glaciers [move](https://example.org/x "t") **slowly**,
see `flow.py`.\\
Next line.

- one
  - inner
- two

1. first
2. second

> quoted

| a | b |
|---|:-:|
| 1 | `x|y` |

```python
def f():
    pass
```
"""
    assert blocks_of(extract(text, "a.md").pages[0]) == [
        ("heading1", "Ice and rock"),
        ("text", "Glaciers move slowly, see flow.py.\nNext line."),
        ("list", "- one\n  - inner\n- two"),
        ("list", "1. first\n2. second"),
        ("quote", "quoted"),
        ("table", "| a | b |\n| --- | --- |\n| 1 | `x |"),
        ("code", "def f():\n    pass"),
    ]


@pytest.mark.parametrize(
    ("front", "title"),
    [
        ("---\ntitle: On ice\ntags: [a]\n---\n", "On ice"),
        ("---\ntitle: 'On: ice'\n---\n", "On: ice"),
        ('+++\ntitle = "On ice"\n+++\n', "On ice"),
        ("---\ntags: [a]\n---\n", "Heading"),
        ("", "Heading"),
    ],
)
def test_the_title_is_the_front_matters_else_the_headings(
    front: str, title: str, extract: Extract
) -> None:
    read = extract(front + "# Heading\n\nText.\n", "a.md")
    assert read.title == title
    assert read.pages[0].text == "Heading\n\nText."


def test_a_rule_at_the_start_is_no_front_matter(extract: Extract) -> None:
    assert "Text" in extract("---\n\nText goes on\n\n# H\n", "a.md").pages[0].text


def test_what_site_generators_add_is_left_out(extract: Extract) -> None:
    text = """## Leave { #leave }

{% alert "x" %}
See [the policy]({% page "/policy/
  leave" %}) and [more]({{ site.url }}/more).
{% endalert %}

{% include "step.html" steps: first
  current: second %}

{: .note }
/// tip | Good to know
Ask first.
///
"""
    page = extract(text, "a.md").pages[0]
    assert texts_of(page, BlockKind.HEADING) == ["Leave"]
    assert "See the policy and more." in page.text
    assert "Good to know" in page.text
    for mark in ("{%", "{{", "{:", "///", "{ #"):
        assert mark not in page.text


def test_an_example_of_a_template_tag_loses_the_marks_around_it(extract: Extract) -> None:
    page = extract("# Tags\n\n```\n{% raw %}{% page %}{% endraw %}\n```\n", "a.md").pages[0]
    assert texts_of(page, BlockKind.CODE) == ["{% page %}"]


def test_html_in_markdown_is_read_as_html(extract: Extract) -> None:
    page = extract("<details><summary>More</summary>\n<p>Hidden <b>ice</b></p></details>\n", "a.md")
    assert [text for _, text in blocks_of(page.pages[0])] == ["More", "Hidden ice"]


@pytest.mark.parametrize(
    "bomb", ["[" * 50_000, "![" * 20_000 + "a", "> " * 5_000 + "a", "*a_" * 20_000, "`" * 30_000]
)
def test_nesting_without_end_is_read_or_refused_in_time(bomb: str, extract: Extract) -> None:
    with contextlib.suppress(DocumentUnreadable):
        assert extract("Ice\n\n" + bomb, "a.md").pages[0].text.startswith("Ice")
