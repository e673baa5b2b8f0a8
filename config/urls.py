"""Pages at the root, the REST API under /api/v1/, the back office under /admin/."""

from django.contrib import admin
from django.urls import include, path, re_path

from kb.api.views.docs import UnknownAddress
from kb.views.sign_in import admin_sign_in

urlpatterns = [
    path("api/v1/", include(("finetune.api.urls", "curation-api"))),
    path("api/v1/", include("kb.api.urls")),
    re_path("^api/", UnknownAddress.as_view()),
    path("admin/login/", admin_sign_in),
    path("admin/", admin.site.urls),
    path("", include("finetune.urls")),
    path("", include("kb.urls")),
]
