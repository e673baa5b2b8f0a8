"""Count what each filter would leave of the passages that a query finds."""

from collections.abc import Mapping
from dataclasses import replace

from kb.ranking import CONDITIONS, Filters, Scope, fetch_rows

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
WITH counted AS MATERIALIZED (
    SELECT d.*, c.name AS collection, n
      FROM (SELECT * FROM unnest(%(documents)s::bigint[], %(counts)s::int[])
             UNION ALL
            SELECT document_id, 1 FROM kb_chunk WHERE id = ANY(%(near)s::bigint[]))
           AS found (document_id, n)
      JOIN kb_document d ON d.id = document_id JOIN kb_collection c ON c.id = d.collection_id
     WHERE {permitted})
SELECT facet, value, label, sum(n)::int FROM ({facets}) AS f (facet, value, label, n)
 WHERE value != '' GROUP BY facet, value, label ORDER BY 4 DESC, 2
"""
_HOLDING = """
SELECT document_id, count(*)::int
  FROM (SELECT DISTINCT chunk_id, document_id FROM kb_posting
         WHERE term = ANY(%(terms)s::bigint[]) AND document_id IN ({scope})) AS found
 GROUP BY document_id
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


def count(scope: Scope, terms: list[int], documents: Mapping[int, int], near: list[int]) -> Facets:
    """Count passages that hold one of the terms or are among `near`.

    `documents`: how many with a term each document of the scope has. Gives for each facet the
    values that the other filters leave, as (value, label, count), most frequent first.
    """
    if not documents and not near:
        return {name: [] for name in _FACETS}
    filters = scope.filters
    wide = replace(scope, filters=Filters(document_ids=filters.document_ids))
    if wide != scope:
        documents = dict(
            fetch_rows(_HOLDING.format(scope=wide.sql), wide.parameters | {"terms": terms})
        )
    parameters = scope.parameters | {
        "documents": list(documents),
        "counts": list(documents.values()),
        "near": near,
    }
    selects = [
        f"SELECT '{name}', {values}, n FROM counted d WHERE {_where(filters, leaving_out=own)}"
        for name, (own, values) in _FACETS.items()
    ]
    statement = _COUNTS.format(permitted=wide.condition, facets=" UNION ALL ".join(selects))
    rows = fetch_rows(statement, parameters)
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
