from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("finetune", "0007_training")]

    operations = [
        migrations.AlterField(
            model_name="auditevent",
            name="action",
            field=models.CharField(
                choices=[
                    ("created", "Created"),
                    ("approved", "Approved"),
                    ("edited", "Edited"),
                    ("rejected", "Rejected"),
                    ("undone", "Undone"),
                    ("reopened", "Reopened"),
                    ("stale", "Marked stale"),
                    ("deleted", "Deleted"),
                    ("tagged", "Tagged"),
                    ("imported", "Imported"),
                    ("exported", "Exported"),
                    ("drafted", "Drafted"),
                    ("triaged", "Triaged"),
                    ("duplicates", "Decided duplicates"),
                    ("frozen", "Frozen"),
                    ("requested", "Asked to activate"),
                    ("activated", "Activated"),
                    ("rolled_back", "Rolled back"),
                    ("stopped", "Stopped by its guard"),
                    ("erased", "Erased"),
                ],
                max_length=16,
            ),
        ),
    ]
