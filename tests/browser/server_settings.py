"""The settings of the server under test: static files are served as they lie, not collected."""

from config.settings import *  # noqa: F403

STORAGES["staticfiles"] = {  # noqa: F405
    "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
}
# People whom a test makes have passwords hashed the quick way (tests/conftest.py).
PASSWORD_HASHERS += ["django.contrib.auth.hashers.MD5PasswordHasher"]  # noqa: F405
