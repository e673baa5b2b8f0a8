"""The addresses of curation. Each part has its section."""

from django.urls import path

from finetune.views import datasets, export, imports, pairs

urlpatterns = [
    # --- Data sets and pairs ---
    path("curate/", datasets.curate, name="curate"),
    path("curate/new/", datasets.dataset_new, name="dataset_new"),
    path("curate/<int:pk>/", pairs.dataset, name="dataset"),
    path("curate/<int:pk>/edit/", datasets.dataset_edit, name="dataset_edit"),
    # --- Import and export ---
    path("curate/<int:pk>/import/", imports.imports, name="imports"),
    path("curate/import/<int:pk>/", imports.pair_import, name="pair_import"),
    path("curate/import/<int:pk>/state/", imports.pair_import_state, name="pair_import_state"),
    path(
        "curate/import/<int:pk>/discard/", imports.pair_import_discard, name="pair_import_discard"
    ),
    path("curate/import/<int:pk>/retry/", imports.pair_import_retry, name="pair_import_retry"),
    path(
        "curate/import/<int:pk>/problems/",
        imports.pair_import_problems,
        name="pair_import_problems",
    ),
    path("curate/<int:pk>/export/", export.export, name="export"),
    # --- Duplicates and snapshots ---
    # --- Feedback, gaps, drafts ---
]
