"""What people ask and no document says: questions that mean the same, as one gap."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from django.db import transaction
from django.db.models import Max, Min, Q
from django.utils import timezone

from finetune.models import AuditEvent, GapQuestion, KnowledgeGap, TriageItem
from kb import citations
from kb.backends import get_backend
from kb.models import Collection, Document, DocumentVersion, Membership, User
from kb.prompts import Source
from kb.search import Filters, Hit, search

State = KnowledgeGap.State
# Cosine from which two questions are one gap. With all-MiniLM-L6-v2, 9 of 12 pairs of questions in
# other words reached it, and 2 of 12 that ask another thing of the same subject.
SAME = 0.75
LOOKED_AT = 8  # passages in which an answer is looked for
NAMED_AUTHORS = 5


class GapRefused(Exception):
    """Something that cannot be done with a gap; the message is a sentence for the person."""


# --- A question becomes part of a gap ------------------------------------------------------------


def add(item: TriageItem, user: User) -> KnowledgeGap:
    """Put a question to the nearest open gap of its collection, or open one for it.

    Raises EmbeddingError when the embedding model is away.
    """
    known = GapQuestion.objects.filter(triage=item).select_related("gap").first()
    if known is not None:
        return known.gap
    vector = get_backend("EMBEDDER").embed_query(item.searched)
    with transaction.atomic():
        # Two curators who sort the same question at once must not open two gaps.
        Collection.objects.select_for_update(no_key=True).get(pk=item.collection_id)
        gap = _nearest(item.collection_id, vector) or KnowledgeGap.objects.create(
            collection_id=item.collection_id, title=item.searched
        )
        gap.questions.create(
            triage=item, text=item.searched, vector=vector.tolist(), created_at=item.created_at
        )
    return gap


def _nearest(collection: int, vector: npt.NDArray[np.float32]) -> KnowledgeGap | None:
    """Give the open gap with the question nearest in meaning, if it is near enough."""
    asked = GapQuestion.objects.filter(gap__collection=collection).exclude(gap__state=State.CLOSED)
    best, found = SAME, None
    for question in asked.select_related("gap"):
        # Another embedding model gave the older ones another length.
        if len(question.vector) == len(vector):
            cosine = float(np.asarray(question.vector, np.float32) @ vector)
            if cosine >= best:
                best, found = cosine, question.gap
    return found


def take_out(item: TriageItem) -> None:
    """Take a question out of its gap again; a gap without questions goes."""
    question = GapQuestion.objects.filter(triage=item).select_related("gap").first()
    if question is not None:
        question.delete()
        if not question.gap.questions.exists():
            question.gap.delete()


# --- What a person does with gaps ----------------------------------------------------------------


def merge(gap: KnowledgeGap, into: KnowledgeGap, user: User) -> KnowledgeGap:
    """Make two gaps one. Raises GapRefused."""
    if gap.pk == into.pk or gap.collection_id != into.collection_id:
        raise GapRefused("Choose another gap of the same collection.")
    with transaction.atomic():
        _record(user, into, "merged", title=gap.title, other=gap.pk)
        gap.questions.update(gap=into)
        if gap.note:
            into.note = "\n".join(filter(None, (into.note, gap.note)))
            into.save(update_fields=["note"])
        gap.delete()
    return into


def split(question: GapQuestion, user: User) -> KnowledgeGap:
    """Give a question a gap of its own. Raises GapRefused."""
    if question.gap.questions.count() < 2:
        raise GapRefused("This is the gap's only question.")
    with transaction.atomic():
        made = KnowledgeGap.objects.create(
            collection_id=question.gap.collection_id, title=question.text
        )
        _record(user, made, "split", other=question.gap_id)
        question.gap = made
        question.save(update_fields=["gap"])
    return made


def change(
    gap: KnowledgeGap, user: User, *, title: str, note: str, assigned_to: User | None
) -> KnowledgeGap:
    """Change what a gap is called, what is noted, and who sees to it. Raises GapRefused."""
    title = title.strip()
    if not title:
        raise GapRefused("Give the gap a title.")
    if assigned_to is not None and not may_see_to(gap).filter(pk=assigned_to.pk).exists():
        raise GapRefused("Choose somebody who reads this collection.")
    with transaction.atomic():
        gap.is_renamed = gap.is_renamed or title != gap.title.strip()
        gap.title, gap.note, gap.assigned_to = title, note.strip(), assigned_to
        if gap.state != State.CLOSED:
            gap.state = State.ASSIGNED if assigned_to else State.OPEN
        gap.save(update_fields=["title", "is_renamed", "note", "assigned_to", "state"])
        _record(user, gap, "changed", assigned_to=assigned_to.username if assigned_to else "")
    return gap


def close(gap: KnowledgeGap, user: User) -> None:
    """Say that the documents have it now, or never will."""
    with transaction.atomic():
        gap.state, gap.closed_at = State.CLOSED, timezone.now()
        gap.save(update_fields=["state", "closed_at"])
        _record(user, gap, "closed")


def reopen(gap: KnowledgeGap, user: User) -> None:
    with transaction.atomic():
        gap.state = State.ASSIGNED if gap.assigned_to_id else State.OPEN
        gap.closed_at = None
        gap.save(update_fields=["state", "closed_at"])
        _record(user, gap, "reopened")


def _record(user: User, gap: KnowledgeGap, what: str, **detail: Any) -> None:
    AuditEvent.objects.record(
        user, AuditEvent.Action.TRIAGED, gap, gap.collection, what=what, **detail
    )


# --- Who could answer, and whether something does ------------------------------------------------


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who could answer a gap. `documents`: titles of near documents that they added."""

    user: User
    is_curator: bool
    documents: Sequence[str]


def may_see_to(gap: KnowledgeGap) -> Any:
    """People who may read the gap's collection; a gap can be assigned to them."""
    collection = gap.collection
    everyone = User.objects.filter(is_active=True)
    if collection.is_public:
        return everyone
    memberships = collection.memberships.all()
    return everyone.filter(
        Q(memberships__in=memberships) | Q(groups__memberships__in=memberships)
    ).distinct()


def curators_of(collections: Iterable[int]) -> dict[int, list[User]]:
    """Name who curates or owns each collection, as a person or through a group, by user name."""
    wanted = set(collections)
    kept = Membership.objects.filter(collection__in=wanted).exclude(role=Membership.Role.READER)
    found: dict[int, set[int]] = {pk: set() for pk in wanted}
    for collection, *people in kept.values_list("collection", "user", "group__user"):
        found[collection].update(filter(None, people))
    active = User.objects.filter(is_active=True, pk__in=set().union(*found.values()))
    users = list(active.order_by("username"))
    return {pk: [user for user in users if user.pk in members] for pk, members in found.items()}


def who_could_answer(gap: KnowledgeGap, hits: Sequence[Hit]) -> list[Person]:
    """Name the curators and owners of the collection and who added the documents nearest to it."""
    titles: dict[int, list[str]] = {}
    near = Document.objects.filter(pk__in={hit.document_id for hit in hits})
    for added_by, title in near.exclude(added_by=None).values_list("added_by", "title"):
        titles.setdefault(added_by, []).append(title)
    curators = {user.pk for user in curators_of([gap.collection_id])[gap.collection_id]}
    people = User.objects.filter(pk__in={*curators, *titles}, is_active=True)
    found = [Person(user, user.pk in curators, titles.get(user.pk, [])) for user in people]
    return sorted(found, key=lambda person: (-len(person.documents), person.user.username))


def near_passages(gap: KnowledgeGap, user: User) -> list[Hit]:
    """Find what the user may read in the gap's collection that comes nearest to its name.

    `gap`: with the name for the user (`named_for`). What nears a question that the user may not
    read would tell what it asks.
    """
    filters = Filters(collection_ids=(gap.collection_id,))
    return search(user, gap.name, filters=filters, limit=LOOKED_AT) if gap.name else []


def answered_by(gap: KnowledgeGap, hits: Sequence[Hit]) -> Hit | None:
    """Give the best passage that came after the gap was last asked and seems to answer its name."""
    asked = gap.questions.aggregate(last=Max("created_at"))["last"]
    since = DocumentVersion.objects.filter(
        pk__in={hit.version_id for hit in hits}, published_at__gt=asked or gap.created_at
    )
    new = set(since.values_list("pk", flat=True))
    for hit in hits:
        if hit.version_id in new and _answers(gap.name, hit):
            return hit
    return None


def _answers(question: str, hit: Hit) -> bool:
    similarity = 0.0 if hit.similarity != hit.similarity else hit.similarity
    passage = Source(
        1, hit.title, hit.heading_path, hit.page_first, hit.text, hit.score, similarity
    )
    return citations.is_answerable(question, [passage]).answerable


def asked_between(gap: KnowledgeGap) -> tuple[datetime, datetime]:
    """Give when a gap was first and last asked."""
    times = gap.questions.aggregate(first=Min("created_at"), last=Max("created_at"))
    return times["first"] or gap.created_at, times["last"] or gap.created_at


def has_news(gap: KnowledgeGap) -> bool:
    """Whether any document of the collection was published since the gap was last asked."""
    published = DocumentVersion.objects.filter(
        document__collection=gap.collection_id, published_at__gt=asked_between(gap)[1]
    )
    return published.exists()
