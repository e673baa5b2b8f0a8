"""The Celery app. Messages are hints that work waits; the work itself is rows (kb.models.Job)."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
# A connection pool does not survive the fork of a worker process.
os.environ.setdefault("DATABASE_POOL", "0")

app = Celery("tacit")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.task_default_queue = "default"
app.conf.imports = ["workers.tasks", "workers.watchdog"]
