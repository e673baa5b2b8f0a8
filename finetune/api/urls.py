"""The addresses of curation below /api/v1/. Each part has its section."""

from django.urls import path

from finetune.api import imports

urlpatterns = [
    # --- Data sets and pairs ---
    # --- Import and export ---
    path("datasets/<int:pk>/imports/", imports.Imports.as_view(), name="imports"),
    path("datasets/<int:pk>/export/", imports.Export.as_view(), name="export"),
    path("imports/<int:pk>/", imports.OneImport.as_view(), name="import"),
    path("imports/<int:pk>/preview/", imports.ImportPreview.as_view(), name="import-preview"),
    path("imports/<int:pk>/start/", imports.ImportStart.as_view(), name="import-start"),
    path("imports/<int:pk>/problems/", imports.ImportProblems.as_view(), name="import-problems"),
    # --- Duplicates and snapshots ---
    # --- Feedback, gaps, drafts ---
]
