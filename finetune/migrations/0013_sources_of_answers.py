from collections import defaultdict

from django.db import migrations
from django.db.models import F

# What an answer says may come from every passage that it was offered. Pairs of answers that were made
# before the collections of all these passages were among their sources get one passage of each, as a
# distractor: only who may read them all sees such a pair (finetune.curation.of_other_collections).
SOURCES = r"""
WITH answers AS (
    SELECT pair.id AS pair_id, pair.collection_id AS home, pair.message_id AS answer_id
      FROM finetune_instructionpair pair JOIN kb_message message ON message.id = pair.message_id
     WHERE pair.origin = 'preference' OR (pair.origin = 'answer' AND NOT message.found_nothing)
    UNION
    SELECT pair.id, pair.collection_id, message.id
      FROM finetune_instructionpair pair
      JOIN kb_message message ON message.id = CASE WHEN pair.origin_key ~ '^\d{1,18}>\d{1,18}$'
           THEN split_part(pair.origin_key, '>', 2)::bigint END
     WHERE pair.origin = 'preference' AND NOT message.found_nothing
), missing AS (
    SELECT DISTINCT ON (answers.pair_id, citation.collection_id) answers.pair_id, citation.*
      FROM answers JOIN kb_citation citation ON citation.message_id = answers.answer_id
     WHERE citation.collection_id IS DISTINCT FROM answers.home
       AND NOT EXISTS (SELECT FROM finetune_pairsource source
                        WHERE source.pair_id = answers.pair_id
                          AND source.collection_id IS NOT DISTINCT FROM citation.collection_id)
     ORDER BY answers.pair_id, citation.collection_id, citation.message_id DESC, citation.marker
)
INSERT INTO finetune_pairsource (
    pair_id, marker, is_distractor, collection_id, document_id, version_id, document_name,
    document_key, version_number, title, heading_path, page_first, page_last, "start", "end", text,
    score, similarity, standing, audience
)
SELECT missing.pair_id,
       (SELECT coalesce(max(marker), 0) FROM finetune_pairsource WHERE pair_id = missing.pair_id)
           + row_number() OVER (PARTITION BY missing.pair_id ORDER BY missing.collection_id),
       true, missing.collection_id, missing.document_id, missing.version_id,
       coalesce(document.name, left(missing.title, 255)), coalesce(missing.document_id, 0),
       coalesce(version.number, 1), missing.title, missing.heading_path, missing.page_first,
       missing.page_last, missing."start", missing."end", missing.quote, missing.score, 0, 'stands',
       CASE WHEN collection.id IS NULL THEN '{}' ELSE jsonb_build_object(
           'public', collection.is_public,
           'users', (SELECT coalesce(jsonb_agg(user_id ORDER BY user_id), '[]') FROM kb_membership
                      WHERE collection_id = collection.id AND user_id IS NOT NULL),
           'groups', (SELECT coalesce(jsonb_agg(group_id ORDER BY group_id), '[]') FROM kb_membership
                       WHERE collection_id = collection.id AND group_id IS NOT NULL)) END
  FROM missing
  LEFT JOIN kb_document document ON document.id = missing.document_id
  LEFT JOIN kb_documentversion version ON version.id = missing.version_id
  LEFT JOIN kb_collection collection ON collection.id = missing.collection_id
RETURNING pair_id, collection_id;
"""
# Where one of the two answers is gone nobody can say any more what it drew on: somebody looks again.
LOST = r"""
WITH lost AS (
    SELECT id, collection_id, state FROM finetune_instructionpair pair
     WHERE origin = 'preference' AND state IN ('suggested', 'approved')
       AND (message_id IS NULL OR NOT EXISTS (
            SELECT FROM kb_message WHERE id = CASE WHEN pair.origin_key ~ '^\d{1,18}>\d{1,18}$'
                   THEN split_part(pair.origin_key, '>', 2)::bigint END))
       FOR UPDATE
), voided AS (
    UPDATE finetune_review SET is_void = true
     WHERE undone_at IS NULL AND NOT is_void
       AND pair_id IN (SELECT id FROM lost WHERE state = 'approved')
), marked AS (
    UPDATE finetune_instructionpair pair
       SET state = 'stale', stale_reason = 'An answer that it was made of is gone, so nobody can say'
           ' any more which passages that drew on. Look whether the pair may stay.',
           round = round + (lost.state = 'approved')::int, reviewer_id = NULL, reviewed_at = NULL,
           reject_reason = '', is_disputed = false, updated_at = now()
      FROM lost WHERE pair.id = lost.id
    RETURNING pair.id, pair.collection_id, pair.stale_reason
)
INSERT INTO finetune_auditevent (
    user_id, username, action, subject_kind, subject_id, collection_id, detail, created_at
)
SELECT NULL, '', 'stale', 'instructionpair', id, collection_id,
       jsonb_build_object('reason', stale_reason), now() FROM marked;
"""


REASON = "It learned from pairs whose sources were not all known."


def add_sources(apps, schema_editor):
    """Complete the sources of pairs, and close with them what was frozen and learned already."""
    behind = defaultdict(set)
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(SOURCES)
        for pair, collection in cursor.fetchall():
            behind[pair].add(collection)
    rows = apps.get_model("finetune", "SnapshotRow").objects.filter(pair__in=behind)
    frozen = defaultdict(set)
    for pair, snapshot in rows.values_list("pair", "snapshot"):
        frozen[snapshot] |= behind[pair]
    for snapshot, collections in frozen.items():
        _close(apps, snapshot, collections - {None}, is_lost=None in collections)


def _close(apps, snapshot, collections, *, is_lost):
    """Narrow who sees a snapshot, and who is answered by what learned from it."""
    snapshots = apps.get_model("finetune", "DatasetSnapshot").objects.filter(pk=snapshot)
    snapshots.get().audience.add(*collections)
    if is_lost:
        snapshots.update(has_lost_sources=True)
    Event = apps.get_model("finetune", "AuditEvent")
    for adapter in apps.get_model("finetune", "Adapter").objects.filter(run__snapshot=snapshot):
        known = set(adapter.audience.values_list("pk", flat=True))
        if not (collections - known or is_lost):
            continue
        _narrow(adapter, collections - known, is_lost)
        Deployment = apps.get_model("kb", "ModelDeployment")
        for deployment in Deployment.objects.filter(adapter_name=adapter.name):
            _narrow(deployment, collections - known, is_lost)
        Event.objects.create(
            username="", action="edited", subject_kind="adapter", subject_id=adapter.pk,
            collection_id=adapter.run.snapshot.dataset.collection_id,
            detail={"adapter": adapter.name, "reason": REASON, "closed_with": sorted(collections - known)},
        )


def _narrow(row, collections, is_lost):
    """Let only those be answered who may read these as well; nobody but administrators what is lost."""
    row.audience.add(*collections)
    size = F("audience_size") + len(collections) + int(is_lost)
    type(row).objects.filter(pk=row.pk).update(audience_size=size)


class Migration(migrations.Migration):
    dependencies = [("finetune", "0012_audit_of_unloading"), ("kb", "0006_title_job")]
    operations = [
        migrations.RunPython(add_sources, migrations.RunPython.noop),
        migrations.RunSQL(LOST, migrations.RunSQL.noop),
    ]
