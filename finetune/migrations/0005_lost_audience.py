from django.contrib.postgres.indexes import GinIndex
from django.db import migrations

# A collection that is deleted takes its row of the audience along. Without a note that it was there
# the snapshot would be open to more people than before.
LOST = """
CREATE FUNCTION finetune_audience_lost() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE finetune_datasetsnapshot SET has_lost_sources = true WHERE id = OLD.datasetsnapshot_id;
    RETURN NULL;
END $$;
CREATE TRIGGER audience_lost AFTER DELETE ON finetune_datasetsnapshot_audience
    FOR EACH ROW EXECUTE FUNCTION finetune_audience_lost();
"""
UNDO = """
DROP TRIGGER audience_lost ON finetune_datasetsnapshot_audience;
DROP FUNCTION finetune_audience_lost;
"""


class Migration(migrations.Migration):
    dependencies = [("finetune", "0004_cleaning")]
    operations = [
        migrations.RunSQL(LOST, UNDO),
        migrations.AddIndex(
            "snapshotrow", GinIndex(fields=["document_keys"], name="snapshot_row_documents")
        ),
    ]
