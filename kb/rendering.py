"""Turn the Markdown of an answer into HTML that is safe to show.

Whoever wrote a document may have written parts of the answer, so nothing of it is trusted: raw HTML
is text, images are their alternative text, links go to http(s) only and show where they go, and an
allow-list runs over the result. Citation links and marks of doubt are put in after that.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit

import nh3
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from kb.citations import find_citations

# Rare brackets that stand for our own marks while Markdown is read. They are punctuation, so that
# emphasis beside them opens and closes as it does beside a space.
_DOUBT, _DOUBT_END, _CITE, _CITE_END = "⸦", "⸧", "⸨", "⸩"
_OURS = str.maketrans({_DOUBT: "(", _DOUBT_END: ")", _CITE: "(", _CITE_END: ")"})
_SENTINELS = re.compile(f"[{_DOUBT}{_DOUBT_END}{_CITE_END}]|{_CITE}\\d+")
_TAGS = {
    *("p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li"),
    *("h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "a"),
}
_PIECE = re.compile(r"(<[^<>]*>)")
# What opens a block at the start of a line; a mark before it would make it plain text.
_BLOCK_START = re.compile(
    r"(?:[ \t]*(?:>|[-*+•]|\(?[\da-zA-Z]{1,3}[.)]|#{1,6})[ \t]+|[ \t]*\|)+[ \t]*"
)
_FENCE = re.compile(r"[ \t]*(?:`{3}|~{3})")
_BLOCK_END = ("</p>", "</li>", "</tr>", "</h", "</blockquote>")
_BACK_IN_CODE = str.maketrans({_DOUBT: "", _DOUBT_END: "", _CITE: "[", _CITE_END: "]"})
_LONGEST = 100_000


@dataclass(frozen=True, slots=True)
class CitationLink:
    """Where a marker leads, and what a screen reader says of it."""

    marker: int
    url: str
    label: str


def render_answer(
    text: str,
    *,
    links: Mapping[int, CitationLink] | None = None,
    doubts: Iterable[tuple[int, int]] = (),
) -> SafeString:
    """Give an answer as HTML.

    `links`: by marker; a marker without one stays as it was written. `doubts`: the spans of the
    text, [start, end), that no passage supports; they do not overlap.
    """
    links = links or {}
    text = text[:_LONGEST]
    marked = _with_sentinels(text, set(links), doubts)
    html = nh3.clean(
        _markdown().render(marked),
        tags=_TAGS,
        attributes={"a": {"href"}, "ol": {"start"}},
        attribute_filter=_safe_attribute,
        url_schemes={"http", "https"},
        link_rel="noopener noreferrer nofollow",
    )
    return mark_safe("".join(_with_marks(html, links)))


def _safe_attribute(tag: str, name: str, value: str) -> str | None:
    if (tag, name) != ("a", "href"):
        return value if name == "rel" or value.isdecimal() else None
    return None if re.search(r"[<>\"'\s]|%E2%B8%A[6-9]", value) else value


# --- Into Markdown ----------------------------------------------------------------------------


def _with_sentinels(text: str, markers: set[int], doubts: Iterable[tuple[int, int]]) -> str:
    """Replace citation markers by sentinels and put sentinels around the doubted spans."""
    edits: list[tuple[int, int, str]] = []
    for start, end in doubts:
        start = _behind_block_start(text, start)
        end = start + len(text[start:end].rstrip(" \t|"))
        if start < end <= len(text) and not _FENCE.match(text, start):
            edits += [(start, start, _DOUBT), (end, end, _DOUBT_END)]
    groups: dict[tuple[int, int], list[int]] = {}
    for mark in find_citations(text):
        groups.setdefault((mark.start, mark.end), []).append(mark.marker)
    for (start, end), named in groups.items():
        if all(marker in markers for marker in named):
            start = len(text[:start].rstrip(" \t")) or start
            edits.append((start, end, "".join(f"{_CITE}{n}{_CITE_END}" for n in named)))
    text = text.translate(_OURS)
    for start, end, replacement in sorted(edits, key=lambda edit: edit[:2], reverse=True):
        text = text[:start] + replacement + text[end:]
    return text


def _behind_block_start(text: str, start: int) -> int:
    """Move a position at the start of a line behind its list marker, heading mark or table pipe."""
    if text[:start].rpartition("\n")[2].strip():
        return start
    opening = _BLOCK_START.match(text, start)
    return opening.end() if opening else start


@cache
def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": 20})
    parser.enable(["table", "strikethrough"])
    parser.validateLink = _goes_to_the_web  # type: ignore[method-assign]
    parser.add_render_rule("image", _alternative_text)
    for name in ("heading_open", "heading_close"):
        parser.add_render_rule(name, _lower_heading)
    return parser


def _goes_to_the_web(url: str) -> bool:
    return url.lower().startswith(("https://", "http://"))


def _alternative_text(
    self: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    return escape(self.renderInlineAsText(tokens[index].children, options, env))


def _lower_heading(
    self: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    # The page's own headings end at level 2.
    token = tokens[index]
    level = min(6, int(token.tag[1]) + 2)
    return f"</h{level}>\n" if token.nesting < 0 else f"<h{level}>"


# --- Out of HTML ------------------------------------------------------------------------------


def _with_marks(html: str, links: Mapping[int, CitationLink]) -> Iterable[str]:
    """Put citation links, marks of doubt and the addresses of links into clean HTML."""
    in_doubt, in_code, host, link_text = False, 0, "", ""  # host: of the link we are in
    for piece in _PIECE.split(html):
        if piece.startswith("<"):
            in_code += piece.startswith(("<code", "<pre")) - piece.startswith(("</code", "</pre"))
            if piece == "</a>":
                yield "" if host in link_text else _host(host)
                host = ""
            elif piece.startswith("<a "):
                host, link_text = _host_of(piece), ""
            elif piece.startswith(_BLOCK_END):
                in_doubt = False
            yield piece
        elif in_code or host:
            link_text += piece
            yield piece.translate(_BACK_IN_CODE)
        else:
            for text, sentinel in _runs(piece):
                yield f'<span class="doubted">{text}</span>' if in_doubt and text.strip() else text
                if sentinel.startswith(_CITE):
                    yield _citation(links[int(sentinel[1:])])
                elif sentinel == _DOUBT_END and in_doubt:
                    yield _doubt()
                in_doubt = sentinel == _DOUBT or (in_doubt and sentinel != _DOUBT_END)


def _runs(piece: str) -> Iterable[tuple[str, str]]:
    """Cut text at its sentinels: (text before, sentinel), the last with none."""
    position = 0
    for found in _SENTINELS.finditer(piece):
        yield piece[position : found.start()], found.group()
        position = found.end()
    yield piece[position:], ""


def _host_of(tag: str) -> str:
    address = re.search(r'href="([^"]*)"', tag)
    return urlsplit(address.group(1)).netloc if address else ""


def _host(host: str) -> SafeString:
    return format_html('<span class="host">{}</span>', host)


def _citation(link: CitationLink) -> SafeString:
    return format_html(
        # The word joiner keeps the number on the line of the word before it.
        '\u2060<sup class="cite"><a href="{}" data-source data-marker="{}" aria-label="{}">{}</a></sup>',
        link.url,
        link.marker,
        link.label,
        link.marker,
    )


def _doubt() -> SafeString:
    return format_html(
        '\u2060<sup class="doubt"><button type="button" data-doubt aria-label="{}">?</button></sup>',
        gettext("The cited passages do not support this sentence"),
    )
