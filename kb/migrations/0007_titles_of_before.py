from django.db import migrations
from django.db.models import F

from kb.chunking import embedding_text, text_hash

AT_ONCE = 1_000


def queue_renamed(apps, schema_editor):
    """Queue each document that was renamed before there was a job for it, and is found by another title.

    A passage's hash is of its title, headings and text, so the first passage of a document tells. Were
    these put together in another way one day, more would be queued than must be, which does no harm.
    """
    Chunk, Document, Job = (apps.get_model("kb", name) for name in ("Chunk", "Document", "Job"))
    first = Chunk.objects.filter(position=0, version=F("document__current_version")).exclude(
        document__title_job__state__in=["waiting", "running"]
    )
    rows = first.values_list("document", "document__title", "heading_path", "text", "text_hash")
    renamed = [
        pk
        for pk, title, heading_path, text, known in rows.iterator(chunk_size=AT_ONCE)
        if text_hash(embedding_text(title, heading_path, text)) != known
    ]
    for at in range(0, len(renamed), AT_ONCE):
        batch = renamed[at : at + AT_ONCE]
        jobs = Job.objects.bulk_create(Job(kind="retitle") for _ in batch)
        pairs = zip(batch, jobs, strict=True)
        Document.objects.bulk_update([Document(pk=p, title_job=j) for p, j in pairs], ["title_job"])


class Migration(migrations.Migration):
    dependencies = [("kb", "0006_title_job")]
    operations = [migrations.RunPython(queue_renamed, migrations.RunPython.noop)]
