"""The addresses of the pages."""

from django.urls import path

from kb.views import ask, context, health, palette, search

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("scope/", context.choose_scope, name="scope"),
    path("palette/", palette.palette, name="palette"),
    path("", ask.ask, name="ask"),
    path("c/<int:pk>/", ask.conversation, name="conversation"),
    path("search/", search.search_page, name="search"),
]
