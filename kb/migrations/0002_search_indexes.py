import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("kb", "0001_initial")]

    operations = [
        migrations.DeleteModel(name="Posting"),
        migrations.DeleteModel(name="Term"),
        migrations.CreateModel(
            name="Posting",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "term",
                        "chunk",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("term", models.BigIntegerField()),
                (
                    "chunk",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="postings",
                        to="kb.chunk",
                    ),
                ),
                (
                    "document",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="kb.document",
                    ),
                ),
                ("frequency", models.PositiveSmallIntegerField()),
                ("length", models.PositiveSmallIntegerField()),
            ],
        ),
        # The same key, with the columns that ranking reads: it never visits the table.
        migrations.RunSQL(
            "ALTER TABLE kb_posting DROP CONSTRAINT kb_posting_pkey, ADD PRIMARY KEY"
            " (term, chunk_id) INCLUDE (document_id, frequency, length)",
            migrations.RunSQL.noop,
        ),
        migrations.RunSQL("DELETE FROM kb_embedding", migrations.RunSQL.noop),
        migrations.AddField(
            model_name="embedding",
            name="document",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="kb.document",
                default=0,
            ),
            preserve_default=False,
        ),
        migrations.AddIndex(
            model_name="chunk",
            index=models.Index(fields=["language"], name="chunk_language"),
        ),
    ]
