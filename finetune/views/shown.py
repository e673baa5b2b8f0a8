"""A pair as pages show it: its texts with marks, its passages with what the output took."""

from dataclasses import dataclass

from django.utils.safestring import SafeString

from finetune import quality, queueing, rendering, staleness
from finetune.models import InstructionPair, PairSource, Review
from finetune.rendering import Mark
from finetune.templatetags.curation import flag_label
from kb.models import Document, DocumentVersion, User

FIELDS = ("system", "instruction", "input", "output", "rejected")


@dataclass(frozen=True, slots=True)
class ShownSource:
    """A passage beside a pair. `difference` from the old text to the new where it changed."""

    source: PairSource
    text: SafeString
    difference: SafeString | None
    new_version: DocumentVersion | None
    is_readable: bool


@dataclass(frozen=True, slots=True)
class ShownPair:
    """A pair ready for its template. `said`: what other people judged of it, when they disagree."""

    pair: InstructionPair
    texts: dict[str, SafeString]
    sources: list[ShownSource]
    reasons: list[queueing.Reason]
    why: str
    stale_reason: str
    said: list[Review]


def shown(pair: InstructionPair, user: User) -> ShownPair:
    """Complete a pair for its page."""
    sources = pair.sources.select_related("document__current_version").order_by("marker")
    readable = set(
        Document.objects.visible_to(user)
        .filter(pk__in=[s.document_id for s in sources])
        .values_list("pk", flat=True)
    )
    return ShownPair(
        pair=pair,
        texts={name: rendering.marked(getattr(pair, name), _found(pair, name)) for name in FIELDS},
        sources=[_shown_source(pair, s, s.document_id in readable) for s in sources],
        reasons=queueing.reasons(pair, pair.dataset.queue),
        why=queueing.why(pair, pair.dataset.queue),
        stale_reason=pair.stale_reason or staleness.reason_of(pair),
        said=_said(pair) if pair.is_disputed else [],
    )


def _found(pair: InstructionPair, name: str) -> list[Mark]:
    """Mark what the quality columns found in a field."""
    return [
        Mark(start, end, "finding", _label(kind))
        for kind, where, start, end in pair.findings
        if where == name
    ]


def _label(kind: str) -> str:
    return flag_label(quality.flag_of(kind) or kind)


def _shown_source(pair: InstructionPair, source: PairSource, is_readable: bool) -> ShownSource:
    marks = (
        []
        if source.is_distractor
        else rendering.supporting(pair.output, source.marker, source.text)
    )
    found = (
        staleness.present_text(source) if source.standing == PairSource.Standing.CHANGED else None
    )
    new = None
    if found:
        version, (start, end) = found
        new = rendering.difference(source.text, version.text[start:end])
    return ShownSource(
        source=source,
        text=rendering.marked(source.text, marks),
        difference=new,
        new_version=found[0] if found else None,
        is_readable=is_readable,
    )


def _said(pair: InstructionPair) -> list[Review]:
    return list(Review.objects.standing().filter(pair=pair).order_by("created_at"))
