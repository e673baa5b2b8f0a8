from django.db import migrations, models

# A collection that is deleted takes its row of an answer's passages along. Without a note that it
# was there the rated answer would be open to more people than before.
LOST = """
CREATE FUNCTION finetune_passages_lost() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE finetune_triageitem SET has_lost_sources = true WHERE id = OLD.triageitem_id;
    RETURN NULL;
END $$;
CREATE TRIGGER passages_lost AFTER DELETE ON finetune_triageitem_passage_collections
    FOR EACH ROW EXECUTE FUNCTION finetune_passages_lost();
"""
UNDO = """
DROP TRIGGER passages_lost ON finetune_triageitem_passage_collections;
DROP FUNCTION finetune_passages_lost;
"""
# What was rated before: its passages still say which of them lost their collection.
KNOWN = """
UPDATE finetune_triageitem SET has_lost_sources = true FROM kb_message
WHERE kb_message.id = finetune_triageitem.message_id AND NOT kb_message.found_nothing AND EXISTS (
    SELECT FROM kb_citation WHERE message_id = kb_message.id AND collection_id IS NULL
);
"""


class Migration(migrations.Migration):
    dependencies = [("finetune", "0009_erasure")]
    operations = [
        migrations.AddField("triageitem", "has_lost_sources", models.BooleanField(default=False)),
        migrations.RunSQL(KNOWN, migrations.RunSQL.noop),
        migrations.RunSQL(LOST, UNDO),
    ]
