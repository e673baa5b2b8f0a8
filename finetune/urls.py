"""The addresses of curation. Each part has its section."""

from django.urls import path

from finetune.views import datasets, pairs

urlpatterns = [
    # --- Data sets and pairs ---
    path("curate/", datasets.curate, name="curate"),
    path("curate/new/", datasets.dataset_new, name="dataset_new"),
    path("curate/<int:pk>/", pairs.dataset, name="dataset"),
    path("curate/<int:pk>/edit/", datasets.dataset_edit, name="dataset_edit"),
    # --- Import and export ---
    # --- Duplicates and snapshots ---
    # --- Feedback, gaps, drafts ---
]
