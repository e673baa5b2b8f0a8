"""Pages need static files, without a collected manifest."""

from tests.kb.views.conftest import page, static_files_as_they_lie

__all__ = ["page", "static_files_as_they_lie"]
