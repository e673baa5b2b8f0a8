import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("finetune", "0005_lost_audience"),
    ]
    operations = [
        migrations.AlterField(
            model_name="triageitem",
            name="signal",
            field=models.CharField(choices=[("down", "Rated wrong"), ("corrected", "Corrected"), ("nothing_found", "Not in the documents"), ("up", "Rated right")], max_length=16),
        ),
        migrations.CreateModel(
            name="Drafting",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("wanted", models.PositiveIntegerField()),
                ("choice", models.JSONField(default=dict)),
                ("plan", models.JSONField(blank=True, default=list)),
                ("position", models.PositiveIntegerField(default=0)),
                ("written", models.PositiveIntegerField(default=0)),
                ("problems", models.JSONField(blank=True, default=dict)),
                ("author_label", models.CharField(blank=True, help_text="What writes the drafts.", max_length=200)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("dataset", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="draftings", to="finetune.dataset")),
                ("job", models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name="drafting", to="kb.job")),
                ("started_by", models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name="+", to=settings.AUTH_USER_MODEL)),
            ],
            options={
                "indexes": [models.Index(fields=["dataset", "-created_at"], name="drafting_recent")],
                "constraints": [models.CheckConstraint(condition=models.Q(("wanted__gte", 1), ("wanted__lte", 10000)), name="drafting_wanted_1_to_10000")],
            },
        ),
    ]
