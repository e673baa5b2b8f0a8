from django.apps import AppConfig


class FinetuneConfig(AppConfig):
    """Curation, training, evaluation and activation."""

    name = "finetune"
    default_auto_field = "django.db.models.BigAutoField"
