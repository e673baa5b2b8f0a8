from django.db import migrations, models

# A title that none of the gap's questions bears, where somebody changed the gap, is that person's.
KNOWN = """
UPDATE finetune_knowledgegap AS gap SET is_renamed = true WHERE EXISTS (
    SELECT FROM finetune_auditevent WHERE subject_kind = 'knowledgegap' AND subject_id = gap.id
    AND detail->>'what' = 'changed'
) AND EXISTS (
    SELECT FROM finetune_gapquestion WHERE gap_id = gap.id
) AND NOT EXISTS (
    SELECT FROM finetune_gapquestion WHERE gap_id = gap.id AND text = gap.title
);
"""


class Migration(migrations.Migration):
    dependencies = [("finetune", "0010_lost_passages")]
    operations = [
        migrations.AddField("knowledgegap", "is_renamed", models.BooleanField(default=False)),
        migrations.RunSQL(KNOWN, migrations.RunSQL.noop),
    ]
