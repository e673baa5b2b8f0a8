"""Count what each filter would leave of the passages that a query finds."""

from dataclasses import replace
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db import connection

from kb.models import User
from kb.ranking import CONDITIONS, Filters, scope_of

# Facet -> its filters, and its values for the document `d` (of the collection `c`).
_FACETS: dict[str, tuple[tuple[str, ...], str]] = {
    "collection": (("collection_ids",), "SELECT d.collection_id::text, c.name"),
    "type": (("media_types",), "SELECT d.media_type, ''"),
    "language": (("languages",), "SELECT d.language, ''"),
    "tag": (("tags",), "SELECT tag, tag FROM unnest(d.tags) AS tag"),
    "year": (("since", "until"), "SELECT extract(year FROM d.updated_at)::text, ''"),
}
_NAMES = [name for names, _ in _FACETS.values() for name in names]
MAX_VALUES = 12
_COUNTS = """
WITH found AS (
    SELECT chunk_id, document_id FROM kb_posting
     WHERE term = ANY(%(terms)s::bigint[]) AND document_id IN ({scope})
     UNION
    SELECT id, document_id FROM kb_chunk
     WHERE id = ANY(%(near)s::bigint[]) AND document_id IN ({scope})),
counted AS (SELECT document_id, count(*) AS n FROM found GROUP BY document_id)
SELECT f.facet, f.value, min(f.label), sum(n)::int
  FROM counted JOIN kb_document d ON d.id = document_id JOIN kb_collection c ON c.id = d.collection_id,
       LATERAL ({facets}) AS f (facet, value, label)
 WHERE f.value != '' GROUP BY 1, 2 ORDER BY 4 DESC, 2
"""
# What people call the formats; other types show what follows the slash.
_TYPE_LABELS = {
    "application/pdf": "PDF",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "Word",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "PowerPoint",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "Excel",
    "application/epub+zip": "EPUB",
    "message/rfc822": "E-mail",
    "text/csv": "CSV",
    "text/html": "HTML",
    "text/markdown": "Markdown",
    "text/plain": "Text",
}

Facets = dict[str, list[tuple[str, str, int]]]


def count(
    user: User | AnonymousUser, filters: Filters, terms: list[int], near: list[int]
) -> Facets:
    """Count passages that hold one of the terms or are among `near`.

    Gives for each facet the values that the other filters leave, as (value, label, count), most
    frequent first.
    """
    unset: dict[str, Any] = dict.fromkeys(_NAMES, ())
    scope = scope_of(user, replace(filters, **unset))
    if scope.is_empty:
        return {name: [] for name in _FACETS}
    parameters: dict[str, Any] = {**scope.parameters, **filters.parameters()}
    parameters |= {"terms": terms, "near": near}
    selects = [
        f"SELECT '{name}', v.* FROM ({values}) AS v WHERE {_where(filters, leaving_out=own)}"
        for name, (own, values) in _FACETS.items()
    ]
    statement = _COUNTS.format(scope=scope.sql, facets=" UNION ALL ".join(selects))
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows = cursor.fetchall()
    facets: Facets = {name: [] for name in _FACETS}
    for name, value, label, number in rows:
        if len(facets[name]) < MAX_VALUES:
            facets[name].append((value, label or _label(name, value), number))
    return facets


def _where(filters: Filters, *, leaving_out: tuple[str, ...]) -> str:
    names = [n for n in _NAMES if n in filters.parameters() and n not in leaving_out]
    return " AND ".join(CONDITIONS[name] for name in names) or "true"


def _label(facet: str, value: str) -> str:
    if facet == "type":
        return _TYPE_LABELS.get(value, value.rpartition("/")[2])
    if facet == "language":
        return "Other" if value == "simple" else value.capitalize()
    return value
