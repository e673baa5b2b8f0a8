"""The ASGI application: pages, API and answer streams in one process."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

_django = get_asgi_application()  # from here on models can be imported

from kb.bodies import BodyLimit  # noqa: E402

application = BodyLimit(_django)
