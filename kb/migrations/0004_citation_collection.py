import django.db.models.deletion
from django.db import migrations, models

# A quote is shown as long as its collection may be read, also when its document is gone.
FILL = """
UPDATE kb_citation SET collection_id = kb_document.collection_id
  FROM kb_document WHERE kb_document.id = kb_citation.document_id
"""


class Migration(migrations.Migration):
    dependencies = [("kb", "0003_job_kinds")]

    operations = [
        migrations.AddField(
            "citation",
            "collection",
            models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="kb.collection",
            ),
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
    ]
