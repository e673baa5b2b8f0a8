"""Count what each filter would leave of the passages that a query finds."""

from dataclasses import replace
from typing import Any

from django.db import connection

from kb.ranking import CONDITIONS, Filters, Scope

# Facet -> its filters, and its values and their labels for a document of `counted`.
_FACETS: dict[str, tuple[tuple[str, ...], str]] = {
    "collection": (("collection_ids",), "d.collection_id::text, d.collection"),
    "type": (("media_types",), "d.media_type, ''"),
    "language": (("languages",), "d.language, ''"),
    "tag": (("tags",), "unnest(d.tags), ''"),
    "year": (("since", "until"), "extract(year FROM d.updated_at)::text, ''"),
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
counted AS MATERIALIZED (
    SELECT d.*, c.name AS collection, n
      FROM (SELECT document_id, count(*) AS n FROM found GROUP BY document_id) AS counts
      JOIN kb_document d ON d.id = document_id JOIN kb_collection c ON c.id = d.collection_id)
SELECT facet, value, label, sum(n)::int FROM ({facets}) AS f (facet, value, label, n)
 WHERE value != '' GROUP BY facet, value, label ORDER BY 4 DESC, 2
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


def count(scope: Scope, terms: list[int], near: list[int]) -> Facets:
    """Count passages that hold one of the terms or are among `near`.

    Gives for each facet the values that the other filters leave, as (value, label, count), most
    frequent first.
    """
    if not terms and not near:
        return {name: [] for name in _FACETS}
    filters = scope.filters
    unset: dict[str, Any] = dict.fromkeys(_NAMES, ())
    scope = replace(scope, filters=replace(filters, **unset))
    parameters = scope.parameters | filters.parameters() | {"terms": terms, "near": near}
    selects = [
        f"SELECT '{name}', {values}, n FROM counted d WHERE {_where(filters, leaving_out=own)}"
        for name, (own, values) in _FACETS.items()
    ]
    statement = _COUNTS.format(scope=scope.sql, facets=" UNION ALL ".join(selects))
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows = cursor.fetchall()
    facets: Facets = {name: [] for name in _FACETS}
    for name, value, label, number in rows:
        if len(facets[name]) < MAX_VALUES:
            facets[name].append((value, label or label_of(name, value), number))
    return facets


def _where(filters: Filters, *, leaving_out: tuple[str, ...]) -> str:
    names = [n for n in _NAMES if n in filters.parameters() and n not in leaving_out]
    return " AND ".join(CONDITIONS[name] for name in names) or "true"


def label_of(facet: str, value: str) -> str:
    """Say how people call a value that has no name of its own."""
    if facet == "type":
        return _TYPE_LABELS.get(value, value.rpartition("/")[2])
    if facet == "language":
        return "Other" if value == "simple" else value.capitalize()
    return value
