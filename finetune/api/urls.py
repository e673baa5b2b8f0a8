"""The addresses of curation below /api/v1/. Each part has its section."""

from django.urls import path

from finetune.api import cleaning, imports

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
    path("datasets/<int:pk>/duplicates/", cleaning.Duplicates.as_view(), name="duplicates"),
    path("cleanings/<int:pk>/", cleaning.OneCleaning.as_view(), name="cleaning"),
    path("duplicates/<int:pk>/decision/", cleaning.Decision.as_view(), name="duplicate-decision"),
    path("datasets/<int:pk>/snapshots/", cleaning.Snapshots.as_view(), name="snapshots"),
    path("snapshots/<int:pk>/", cleaning.OneSnapshot.as_view(), name="snapshot"),
    path("snapshots/<int:pk>/file/", cleaning.SnapshotFile.as_view(), name="snapshot-file"),
    path(
        "snapshots/<int:pk>/manifest/",
        cleaning.SnapshotManifest.as_view(),
        name="snapshot-manifest",
    ),
    path(
        "snapshots/<int:pk>/difference/",
        cleaning.SnapshotDifference.as_view(),
        name="snapshot-difference",
    ),
    path(
        "snapshots/<int:pk>/reproduction/",
        cleaning.SnapshotReproduction.as_view(),
        name="snapshot-reproduction",
    ),
    # --- Feedback, gaps, drafts ---
]
