"""Pairs whose passages are no longer what was approved: changed, deleted, or read by fewer people.

The sweeper calls `Watch.look` every few seconds, and a freeze `catch_up` before it reads. What is new
is found by index, a document at a time; a second sweeper does no harm.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from finetune.models import AuditEvent, Dataset, InstructionPair, PairSource, SnapshotRow
from kb.models import Chunk, Collection, DocumentVersion, Membership
from kb.sentences import split_sentences

Span = tuple[int, int]
Sources = QuerySet[PairSource]
Audience = dict[str, Any]
Standing = PairSource.Standing
State = InstructionPair.State
SOURCES_AT_ONCE = 1_000
# A new passage is offered for an old one when it has at least this share of its words in order.
LEAST_ALIKE = 0.3
_MOVED = ("version_id", "version_number", "start", "end", "text", "standing", "audience")
_WORD = re.compile(r"\w+|[^\w\s]")


# --- Who may read ---------------------------------------------------------------------------------


def audience_of(collections: Iterable[int]) -> dict[int, Audience]:
    """Say who may read each collection, as PairSource.audience keeps it."""
    audiences: dict[int, Audience] = {
        pk: {"public": is_public, "users": [], "groups": []}
        for pk, is_public in Collection.objects.filter(pk__in=list(collections)).values_list(
            "pk", "is_public"
        )
    }
    memberships = Membership.objects.filter(collection__in=audiences)
    for pk, user, group in memberships.order_by("pk").values_list("collection", "user", "group"):
        audiences[pk]["users" if user else "groups"].append(user or group)
    for audience in audiences.values():
        audience["users"].sort()
        audience["groups"].sort()
    return audiences


def is_narrower(now: Audience, then: Audience) -> bool:
    """Whether somebody who could read it then cannot now. An audience nobody noted is not."""
    if not then or now["public"]:
        return False
    lost = (set(then[kind]) - set(now[kind]) for kind in ("users", "groups"))
    return bool(then["public"] or any(lost))


# --- Where a text stands --------------------------------------------------------------------------


def find_text(wanted: str, text: str, near: int) -> Span | None:
    """Find a passage again, white space aside, at the place nearest to `near`; None if changed."""
    exact = list(_occurrences(wanted, text))
    if exact:
        start = min(exact, key=lambda at: abs(at - near))
        return start, start + len(wanted)
    words = wanted.split()
    if not words:
        return None
    pattern = re.compile(r"\s+".join(map(re.escape, words)))
    spans = [found.span() for found in pattern.finditer(text)]
    return min(spans, key=lambda span: abs(span[0] - near), default=None)


def _occurrences(wanted: str, text: str) -> Iterable[int]:
    at = text.find(wanted) if wanted else -1
    while at >= 0:
        yield at
        at = text.find(wanted, at + 1)


def nearest_text(old: str, version: DocumentVersion) -> Span | None:
    """Find what a changed passage became: whole sentences of the version; None when it is gone."""
    words = _WORD.findall(old)
    chunks = Chunk.objects.filter(version=version).values_list("start", "end", "text")
    wanted = set(words)
    best = max(chunks, key=lambda chunk: len(wanted & set(_WORD.findall(chunk[2]))), default=None)
    if best is None:
        return None
    # What a passage became may reach over the cuts of today's passages.
    first = max(0, best[0] - len(old))
    return _aligned(words, version.text[first : best[1] + len(old)], first)


def _aligned(words: Sequence[str], window: str, offset: int) -> Span | None:
    places = [found.span() for found in _WORD.finditer(window)]
    there = [window[start:end] for start, end in places]
    matcher = SequenceMatcher(None, words, there, autojunk=False)
    blocks = [block for block in matcher.get_matching_blocks() if block.size > 1]
    if sum(block.size for block in blocks) < LEAST_ALIKE * len(words):
        return None
    start, end = places[blocks[0].b][0], places[blocks[-1].b + blocks[-1].size - 1][1]
    touched = [s for s in split_sentences(window) if s.start < end and start < s.end]
    if touched:
        start, end = min(start, touched[0].start), max(end, touched[-1].end)
    return offset + start, offset + end


# --- The sources of one pair ----------------------------------------------------------------------


def accept_sources(pair: InstructionPair) -> list[dict[str, Any]]:
    """Take what a person has just looked at as the pair's sources; gives what they were before.

    A changed passage becomes its present text; who may read it now is noted.
    """
    sources = list(pair.sources.select_related("document__current_version"))
    audiences = audience_of({s.collection_id for s in sources if s.collection_id})
    former = []
    for source in sources:
        before = {name: getattr(source, name) for name in _MOVED}
        if source.standing == Standing.CHANGED and (now := present_text(source)):
            _move(source, *now)
        source.audience = audiences.get(source.collection_id or 0, {})
        if before != {name: getattr(source, name) for name in _MOVED}:
            former.append({"id": source.pk, **before})
            source.save()
    return former


def restore_sources(pair: InstructionPair, former: Iterable[dict[str, Any]]) -> None:
    """Put sources back to what `accept_sources` gave."""
    for values in former:
        kept = {name: value for name, value in values.items() if name != "id"}
        pair.sources.filter(pk=values["id"]).update(**kept)


def present_text(source: PairSource) -> tuple[DocumentVersion, Span] | None:
    """Give the text that a changed source became, in the document's current version."""
    version = source.document.current_version if source.document else None
    span = nearest_text(source.text, version) if version else None
    return (version, span) if version and span else None


def _move(source: PairSource, version: DocumentVersion, span: Span) -> None:
    source.version, source.version_number = version, version.number
    source.start, source.end = span
    source.text = version.text[span[0] : span[1]]
    source.standing, source.checked_version = Standing.STANDS, version.pk


def reason_of(pair: InstructionPair) -> str:
    """Say in a sentence why the pair is stale; "" when it is not."""
    sources = list(pair.sources.all())
    audiences = audience_of({s.collection_id for s in sources if s.collection_id})
    for source in sources:
        now = audiences.get(source.collection_id or 0)
        if source.standing == Standing.GONE:
            return _deleted([source.document_name], [pair.pk])
        if source.standing == Standing.CHANGED:
            return _changed(source)
        if now and is_narrower(now, source.audience):
            return _narrowed(source)
    return ""


def _changed(source: PairSource) -> str:
    return _("“%(name)s” was changed: the passage no longer stands in it as it was approved.") % {
        "name": source.title
    }


def _narrowed(source: PairSource) -> str:
    return _("Fewer people may read “%(name)s” than when the pair was approved.") % {
        "name": source.title
    }


def _deleted(names: Sequence[str], pairs: Iterable[int]) -> str:
    numbers = snapshots_with(pairs)
    sentence = _("“%(name)s” was deleted.") % {"name": names[0]}
    if numbers:
        named = ", ".join(f"“{name}” #{number}" for name, number in numbers)
        sentence += " " + ngettext(
            "Snapshot %(named)s was frozen with it.",
            "Snapshots %(named)s were frozen with it.",
            len(numbers),
        ) % {"named": named}
    return sentence[:300]


def snapshots_with(pairs: Iterable[int]) -> list[tuple[str, int]]:
    """Name the snapshots that hold any of the pairs: (data set, number)."""
    rows = SnapshotRow.objects.filter(pair__in=list(pairs)).order_by()
    named = rows.values_list("snapshot__dataset__name", "snapshot__number").distinct()
    return sorted(named)


# --- Looking, again and again ---------------------------------------------------------------------


@dataclass(slots=True)
class Watch:
    """Remembers who could read what, so that only what changed is compared with the pairs."""

    audiences: dict[int, Audience] = field(default_factory=dict)

    def look(self) -> int:
        """Find what became stale since the last look; gives how many pairs did."""
        return look_for_changed() + look_for_deleted() + self._look_for_narrowed()

    def _look_for_narrowed(self) -> int:
        now = audience_of(Collection.objects.values_list("pk", flat=True))
        changed = [pk for pk, audience in now.items() if self.audiences.get(pk) != audience]
        stale = sum(_look_at_readers(pk, now[pk]) for pk in changed)
        self.audiences = now
        return stale


# A version came since the source was last compared, or its document went.
_CHANGED_SINCE = Q(document__current_version__isnull=False) & (
    Q(checked_version=None) | ~Q(checked_version=F("document__current_version"))
)
_GONE_SINCE = Q(document=None) & ~Q(standing=Standing.GONE)


def catch_up(dataset: Dataset) -> int:
    """Find what is stale in a data set now, not when the sweeper comes; gives how many pairs."""
    sources = PairSource.objects.filter(pair__dataset=dataset)
    stale = look_for_changed(sources, waits=True) + look_for_deleted(sources)
    collections = sources.order_by().values_list("collection", flat=True).distinct()
    for collection, now in audience_of(filter(None, collections)).items():
        stale += _look_at_readers(collection, now)
    return stale


def behind(dataset: Dataset) -> set[int]:
    """Name the pairs with a source that was not yet compared with its document as it is now."""
    sources = PairSource.objects.filter(_CHANGED_SINCE | _GONE_SINCE, pair__dataset=dataset)
    return set(sources.values_list("pair", flat=True))


def look_for_changed(sources: Sources | None = None, *, waits: bool = False) -> int:
    """Compare sources, all unless told, with versions that were published since.

    `waits`: for those that somebody else is at; else they are left to them.
    """
    changed = (PairSource.objects.all() if sources is None else sources).filter(_CHANGED_SINCE)
    changed.filter(version=F("document__current_version")).update(
        checked_version=F("version_id"), standing=Standing.STANDS
    )
    documents = changed.order_by("document").values_list("document", flat=True).distinct()
    return sum(_look_at_document(document, waits=waits) for document in list(documents))


def _look_at_document(pk: int, *, waits: bool) -> int:
    """Compare every source of a document with its current version."""
    version = DocumentVersion.objects.filter(document=pk, document__current_version=F("pk")).first()
    if version is None:
        return 0
    with transaction.atomic():
        sources = list(
            PairSource.objects.filter(document=pk)
            .exclude(checked_version=version.pk)
            .select_for_update(of=("self",), skip_locked=not waits)
        ) + list(
            PairSource.objects.filter(document=pk, checked_version=None)
            .select_for_update(of=("self",), skip_locked=not waits)
        )  # fmt: skip
        slices = _old_slices(sources)
        for source in sources:
            _look_at_source(source, version, slices.get(source.pk, ""))
        PairSource.objects.bulk_update(
            sources,
            ["version", "version_number", "start", "end", "standing", "checked_version"],
            batch_size=500,
        )
        changed = [source for source in sources if source.standing == Standing.CHANGED]
        return mark_stale({source.pair_id: _changed(source) for source in changed})


def _old_slices(sources: Sequence[PairSource]) -> dict[int, str]:
    """Give the text that the spans of sources stand for; their `text` may repeat a table's head."""
    texts = dict(
        DocumentVersion.objects.filter(pk__in={s.version_id for s in sources}).values_list(
            "pk", "text"
        )
    )
    return {s.pk: texts.get(s.version_id or 0, "")[s.start : s.end] for s in sources}


def _look_at_source(source: PairSource, version: DocumentVersion, stretch: str) -> None:
    source.checked_version = version.pk
    span = find_text(source.text, version.text, source.start)
    if span is None and stretch != source.text:
        span = find_text(stretch, version.text, source.start)
    if span is None:
        source.standing = Standing.CHANGED
        return
    source.version, source.version_number = version, version.number
    (source.start, source.end), source.standing = span, Standing.STANDS


def look_for_deleted(sources: Sources | None = None) -> int:
    """Find sources, of all unless told, whose document is gone."""
    gone = (PairSource.objects.all() if sources is None else sources).filter(_GONE_SINCE)
    stale = 0
    while (found := _mark_gone(gone)) is not None:
        stale += found
    return stale


def _mark_gone(gone: Sources) -> int | None:
    """Mark some that nobody else is at; gives how many pairs went stale, None where none is left."""
    with transaction.atomic():
        lost = list(gone.select_for_update(of=("self",), skip_locked=True)[:SOURCES_AT_ONCE])
        if not lost:
            return None
        PairSource.objects.filter(pk__in=[source.pk for source in lost]).update(
            standing=Standing.GONE
        )
        return mark_stale(
            {source.pair_id: _deleted([source.title], [source.pair_id]) for source in lost}
        )


def _look_at_readers(collection: int, now: Audience) -> int:
    approved = PairSource.objects.filter(collection=collection, pair__state=State.APPROVED)
    narrowed: dict[int, str] = {}
    then_to_sources: dict[str, list[PairSource]] = defaultdict(list)
    for source in approved.exclude(audience={}).only("pair", "title", "audience").iterator():
        then_to_sources[str(source.audience)].append(source)
    for sources in then_to_sources.values():
        if is_narrower(now, sources[0].audience):
            narrowed |= {source.pair_id: _narrowed(source) for source in sources}
    return mark_stale(narrowed)


def mark_stale(reasons: dict[int, str]) -> int:
    """Turn approved pairs stale: pair → sentence. Others keep their state; their sources say it."""
    with transaction.atomic():
        approved = InstructionPair.objects.approved().filter(pk__in=reasons)
        pairs = list(approved.select_for_update(of=("self",)).select_related("collection"))
        for pair in pairs:
            pair.begin_round()
            pair.state, pair.stale_reason = State.STALE, reasons[pair.pk][:300]
            pair.save()
            AuditEvent.objects.record(
                None, AuditEvent.Action.STALE, pair, pair.collection,
                reason=pair.stale_reason, snapshots=[list(s) for s in snapshots_with([pair.pk])],
            )  # fmt: skip
    return len(pairs)
