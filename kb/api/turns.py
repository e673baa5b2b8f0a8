"""Turns made ready for readers: only citations of documents they may still see."""

from collections.abc import Sequence

from django.db.models import Prefetch, QuerySet

from kb.models import Citation, Feedback, Message, User


def with_parts(messages: QuerySet[Message], user: User) -> QuerySet[Message]:
    """Fetch what `describe` reads along with the messages."""
    return messages.select_related("deployment").prefetch_related(
        Prefetch("citations", Citation.objects.order_by("marker")),
        Prefetch("feedback", Feedback.objects.filter(user=user)),
    )


def describe(messages: Sequence[Message], user: User) -> Sequence[Message]:
    """Set what MessageSerializer shows: branches, own rating, visible citations, trace.

    Citations and traced hits of documents that the person may not read any more are left out:
    their title and quote are the document's.
    """
    opened = _openable(messages, user)
    branches = _branches(messages)
    for message in messages:
        shown = [citation for citation in message.citations.all() if citation.pk in opened]
        for citation in shown:
            citation.version_number = opened[citation.pk]  # type: ignore[attr-defined]
        message.shown_citations = shown  # type: ignore[attr-defined]
        message.shown_trace = _shown_trace(message, {c.marker for c in shown})  # type: ignore[attr-defined]
        message.own_rating = next(iter(message.feedback.all()), None)  # type: ignore[attr-defined]
        message.branch_ids = branches[message.parent_id, message.conversation_id]  # type: ignore[attr-defined]
    return messages


def _openable(messages: Sequence[Message], user: User) -> dict[int, int | None]:
    """Version number, None for deleted documents, by the id of each citation the user may open."""
    openable = Citation.objects.openable_by(user).filter(message__in=messages)
    return dict(openable.values_list("pk", "version__number"))


def _branches(messages: Sequence[Message]) -> dict[tuple[int | None, int], list[int]]:
    """Ids of turns by (parent, conversation), oldest first."""
    conversations = {message.conversation_id for message in messages}
    rows = Message.objects.filter(conversation__in=conversations).order_by("pk")
    found: dict[tuple[int | None, int], list[int]] = {}
    for pk, parent, conversation in rows.values_list("pk", "parent_id", "conversation_id"):
        found.setdefault((parent, conversation), []).append(pk)
    return found


def _shown_trace(message: Message, markers: set[int]) -> dict[str, object]:
    trace = dict(message.trace)
    if "hits" in trace:  # in the order of the markers, which start at 1
        trace["hits"] = [hit for n, hit in enumerate(trace["hits"], start=1) if n in markers]
    return trace
