"""What narrows a search, as query strings and forms say it: read, kept, and shown as chips."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

from django.http import QueryDict
from django.utils.dateparse import parse_date
from django.utils.translation import gettext, ngettext

from kb.forms import KINDS
from kb.models import Collection, Conversation, Document, User
from kb.search import Filters
from kb.views.requests import number_in

MOST_VALUES = 50


@dataclass(frozen=True, slots=True)
class Narrowing:
    """The choices of a person; nothing chosen narrows nothing."""

    collections: tuple[Collection, ...] = ()
    media_types: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    since: date | None = None
    until: date | None = None
    documents: tuple[Document, ...] = ()

    @property
    def filters(self) -> Filters:
        return Filters(
            collection_ids=tuple(collection.pk for collection in self.collections),
            media_types=self.media_types,
            languages=self.languages,
            tags=self.tags,
            since=self.since,
            until=self.until,
            document_ids=tuple(document.pk for document in self.documents),
        )

    @property
    def count(self) -> int:
        """How many filters are set, collections aside."""
        parts = (self.media_types, self.languages, self.tags, self.since or self.until)
        return sum(bool(part) for part in parts)

    @property
    def kinds(self) -> list[tuple[str, str, bool]]:
        """The formats on offer as (value, label, whether it is chosen)."""
        return [
            (kind, label, set(media_types) <= set(self.media_types))
            for kind, (label, media_types) in KINDS.items()
        ]

    @property
    def collections_label(self) -> str:
        if not self.collections:
            return gettext("All collections")
        if len(self.collections) == 1:
            return self.collections[0].name
        return gettext("%(count)s collections") % {"count": len(self.collections)}

    @property
    def documents_label(self) -> str:
        if len(self.documents) == 1:
            return self.documents[0].title
        return ngettext("%(count)s document", "%(count)s documents", len(self.documents)) % {
            "count": len(self.documents)
        }


def narrowing_of(values: QueryDict, user: User) -> Narrowing:
    """Read the choices out of a query string or form; what makes no sense narrows nothing."""
    year = values.get("year", "")
    since, until = (f"{year}-01-01", f"{year}-12-31") if year else ("", "")
    return Narrowing(
        collections=_rows(Collection.objects.readable_by, user, _ids(values.getlist("collection"))),
        media_types=_media_types(values.getlist("type")),
        languages=_words(values.getlist("language")),
        tags=_words(tag for field in values.getlist("tag") for tag in field.split(",")),
        since=_date(values.get("since") or since),
        until=_date(values.get("until") or until),
        documents=_rows(Document.objects.visible_to, user, _ids(values.getlist("document"))),
    )


def narrowing_kept(conversation: Conversation) -> Narrowing:
    """Read the choices a conversation keeps, as far as its person may still read them."""
    user, kept = conversation.user, conversation.filters
    ids = conversation.collections.values_list("pk", flat=True)
    return Narrowing(
        collections=tuple(Collection.objects.readable_by(user).filter(pk__in=ids).order_by("name")),
        media_types=tuple(kept.get("media_types", ())),
        languages=tuple(kept.get("languages", ())),
        tags=tuple(kept.get("tags", ())),
        since=_date(kept.get("since")),
        until=_date(kept.get("until")),
        documents=_rows(Document.objects.visible_to, user, kept.get("document_ids", [])),
    )


def keep_narrowing(conversation: Conversation, narrowing: Narrowing) -> None:
    """Write the choices on the conversation; its searches go by them from now on."""
    chosen = narrowing.filters
    kept: dict[str, Any] = {
        "media_types": list(chosen.media_types),
        "languages": list(chosen.languages),
        "tags": list(chosen.tags),
        "since": chosen.since.isoformat() if chosen.since else None,
        "until": chosen.until.isoformat() if chosen.until else None,
        "document_ids": list(chosen.document_ids),
    }
    conversation.filters = {name: value for name, value in kept.items() if value}
    conversation.save(update_fields=["filters"])
    conversation.collections.set(narrowing.collections)


def _rows(visible_to: Callable[[User], Any], user: User, ids: list[int]) -> tuple[Any, ...]:
    return tuple(visible_to(user).filter(pk__in=ids).order_by("pk")) if ids else ()


def _ids(values: Iterable[str]) -> list[int]:
    return [pk for value in values if (pk := number_in(value)) is not None][:MOST_VALUES]


def _media_types(values: Iterable[str]) -> tuple[str, ...]:
    """Read media types; a word of KINDS stands for all of its own."""
    named = (KINDS[value][1] if value in KINDS else (value,) for value in values if value)
    return tuple(dict.fromkeys(media_type for group in named for media_type in group))[:MOST_VALUES]


def _words(values: Iterable[str]) -> tuple[str, ...]:
    words = (" ".join(value.split()) for value in values)
    return tuple(dict.fromkeys(word for word in words if word))[:MOST_VALUES]


def _date(value: str | None) -> date | None:
    try:
        return parse_date(value) if value else None
    except ValueError:
        return None
