from django.apps import AppConfig


class FinetuneConfig(AppConfig):
    """Curation, training, evaluation and activation."""

    name = "finetune"
    verbose_name = "Curation and training"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from finetune import checks  # noqa: F401 - registers them
