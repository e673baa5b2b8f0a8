import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("finetune", "0003_curation"),
    ]
    operations = [
        migrations.CreateModel(
            name="Cleaning",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("counts", models.JSONField(default=dict)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("dataset", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="cleanings", to="finetune.dataset")),
                ("job", models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name="cleaning", to="kb.job")),
                ("started_by", models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name="+", to=settings.AUTH_USER_MODEL)),
            ],
            options={
                "indexes": [models.Index(fields=["dataset", "-created_at"], name="cleaning_recent")],
            },
        ),
    ]
