"""How a document would be cut with other settings; nothing is stored."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from django import forms
from django.db.models.functions import Substr
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.functional import Promise
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_GET

from kb import chunking, reading
from kb.backends import get_backend
from kb.chunking import Chunking, Passage
from kb.models import Document, DocumentPage, DocumentVersion
from kb.pages import Block, BlockKind, Page, document_text, page_offsets
from kb.reading import Stretch, Tint
from kb.views.documents import for_rows, rows_of
from kb.views.requests import PersonRequest

# As much of a document as is cut again on every change of a setting, in whole pages.
PREVIEW_CHARACTERS = 40_000
SHORT_TOKENS = 40
SENTENCE_ENDS = tuple(".!?:;…\"'”’)]。！？|")


class CuttingForm(forms.Form):
    """The three settings, in tokens of the embedding model."""

    target = forms.IntegerField(label=gettext_lazy("Target size"))
    maximum = forms.IntegerField(label=gettext_lazy("Maximum"), min_value=128)
    overlap = forms.IntegerField(label=gettext_lazy("Overlap"), min_value=0)

    def clean(self) -> dict[str, int]:
        chosen: dict[str, int] = self.cleaned_data
        limit = get_backend("EMBEDDER").max_tokens
        if self.errors:
            return chosen
        if chosen["maximum"] > limit:
            self.add_error("maximum", _("The model reads %(n)s tokens at most.") % {"n": limit})
        elif not 16 <= chosen["target"] <= chosen["maximum"]:
            self.add_error("target", _("From 16 to the maximum."))
        elif chosen["overlap"] > chosen["target"] // 2:
            self.add_error("overlap", _("At most half of the target size."))
        return chosen

    def chunking(self) -> Chunking:
        """Give the settings; the defaults when what was typed does not hold together."""
        if not self.is_valid():
            return chunking.DEFAULT
        chosen = self.cleaned_data
        return Chunking(chosen["target"], chosen["maximum"], chosen["overlap"])


@dataclass(frozen=True, slots=True)
class Cut:
    """One passage of the preview. `warnings`: what may make it worse to find or to answer from."""

    number: int
    passage: Passage
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Cutting:
    """A document cut with some settings. Sizes are in tokens, titles and headings included."""

    html: SafeString
    cuts: list[Cut]
    smallest: int
    median: int
    largest: int
    warnings: list[str]
    is_beginning: bool


@require_GET
def document_preview(request: PersonRequest, pk: int) -> HttpResponse:
    """Show the text with alternating tint a passage, cut anew with the settings asked for."""
    visible = for_rows(Document.objects.visible_to(request.user))
    document = get_object_or_404(visible, pk=pk)
    form = CuttingForm({**_defaults(), **request.GET.dict()})
    context = {
        "document": document,
        "form": form,
        "cutting": _cut(document, form.chunking()),
        "limit": get_backend("EMBEDDER").max_tokens,
        "is_default": form.chunking() == chunking.DEFAULT,
        "tab": "preview",
    }
    if request.htmx and not request.htmx.history_restore_request:
        return render(request, "kb/_document_preview.html", context)
    row = rows_of([document], request.user)[0]
    context |= {"row": row, "may_write": row.may_write}
    return render(request, "kb/document_preview.html", context)


def _defaults() -> dict[str, int]:
    standard = chunking.DEFAULT
    return {
        "target": standard.target_tokens,
        "maximum": standard.max_tokens,
        "overlap": standard.overlap_tokens,
    }


def _cut(document: Document, settings: Chunking) -> Cutting | None:
    """Cut the beginning of a document; None while no version of it has been read."""
    pages, is_beginning = _beginning(document)
    if not pages:
        return None
    passages = chunking.split(
        pages,
        count_tokens=get_backend("EMBEDDER").count_tokens,
        title=document.title,
        settings=settings,
    )
    text = document_text(pages)
    ends = _block_ends(pages)
    cuts = [
        Cut(number, passage, [str(w) for w, holds in WARNINGS if holds(passage, text, ends)])
        for number, passage in enumerate(passages)
    ]
    sizes = [passage.token_count for passage in passages] or [0]
    return Cutting(
        html=reading.draw(_stretch(pages, text), [_tint(cut) for cut in cuts]),
        cuts=cuts,
        smallest=min(sizes),
        median=round(median(sizes)),
        largest=max(sizes),
        warnings=_summary(cuts),
        is_beginning=is_beginning,
    )


def _tint(cut: Cut) -> Tint:
    return Tint(cut.passage.start, cut.passage.end, cut.number)


def _beginning(document: Document) -> tuple[list[Page], bool]:
    """Read the first pages of the newest version that was read; false when these are all."""
    version = (
        DocumentVersion.objects.filter(document=document, published_at__isnull=False)
        .defer("text")
        .order_by("-number")
        .first()
    )
    if version is None:
        return [], False
    rows = list(version.pages.filter(start__lt=PREVIEW_CHARACTERS).order_by("number"))
    whole = [row for row in rows if row.end <= PREVIEW_CHARACTERS] or rows[:1]
    if not whole:
        return [], False
    end = min(whole[-1].end, 2 * PREVIEW_CHARACTERS)
    versions = DocumentVersion.objects.filter(pk=version.pk)
    text = versions.values_list(Substr("text", 1, end), flat=True).get()
    return [_page(row, text) for row in whole], end < (version.pages.order_by("-end")[0].end)


def _page(row: DocumentPage, text: str) -> Page:
    page_text = text[row.start : row.end]
    return Page(
        number=row.number,
        text=page_text,
        blocks=tuple(
            Block(BlockKind(kind), start, min(end, len(page_text)), level)
            for kind, start, end, level in row.blocks
            if start < len(page_text)
        ),
    )


def _stretch(pages: list[Page], text: str) -> Stretch:
    return Stretch(
        text,
        0,
        tuple(
            (block.kind, offset + block.start, offset + block.end, block.level)
            for page, offset in zip(pages, page_offsets(pages), strict=True)
            for block in page.blocks
        ),
    )


def _block_ends(pages: list[Page]) -> set[int]:
    """Give where blocks end in the text, so that a cut there is no cut inside a sentence."""
    return {
        offset + block.end
        for page, offset in zip(pages, page_offsets(pages), strict=True)
        for block in page.blocks
    }


Holds = Callable[[Passage, str, set[int]], bool]


def _is_short(passage: Passage, text: str, ends: set[int]) -> bool:
    return passage.token_count < SHORT_TOKENS


def _is_cut_in_sentence(passage: Passage, text: str, ends: set[int]) -> bool:
    stands = text[passage.start : passage.end].rstrip()
    return (
        passage.end not in ends
        and "\n" not in text[passage.end : passage.end + 1]
        and not (stands.endswith(SENTENCE_ENDS))
    )


def _repeats_header(passage: Passage, text: str, ends: set[int]) -> bool:
    return passage.text != text[passage.start : passage.end]


WARNINGS: list[tuple[Promise, Holds]] = [
    (gettext_lazy("very short"), _is_short),
    (gettext_lazy("ends inside a sentence"), _is_cut_in_sentence),
    (gettext_lazy("repeats its table's header"), _repeats_header),
]


def _summary(cuts: list[Cut]) -> list[str]:
    """Say how many passages carry each warning."""
    counts = Counter(warning for cut in cuts for warning in cut.warnings)
    return [
        ngettext("%(n)s passage: %(what)s", "%(n)s passages: %(what)s", n) % {"n": n, "what": what}
        for what, n in counts.items()
    ]
