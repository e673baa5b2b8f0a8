"""The addresses of curation below /api/v1/. Each part has its section."""

from django.urls import path

from finetune.api import cleaning, evaluations, feedback, imports, pairs, runs, serving, training

urlpatterns = [
    # --- Data sets and pairs ---
    path("datasets/", pairs.Datasets.as_view(), name="datasets"),
    path("datasets/<int:pk>/", pairs.OneDataset.as_view(), name="dataset"),
    path("datasets/<int:pk>/pairs/", pairs.Pairs.as_view(), name="pairs"),
    path("datasets/<int:pk>/next/", pairs.NextPair.as_view(), name="next-pair"),
    path("datasets/<int:pk>/undo/", pairs.UndoneReview.as_view(), name="undone-review"),
    path("datasets/<int:pk>/log/", pairs.Log.as_view(), name="log"),
    path("pairs/<int:pk>/", pairs.OnePair.as_view(), name="pair"),
    path("pairs/<int:pk>/approve/", pairs.Approval.as_view(), name="pair-approve"),
    path("pairs/<int:pk>/reject/", pairs.Rejection.as_view(), name="pair-reject"),
    path("pairs/<int:pk>/reopen/", pairs.Reopening.as_view(), name="pair-reopen"),
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
    path("triage/", feedback.Triage.as_view(), name="triage"),
    path("triage/undo/", feedback.UndoTriage.as_view(), name="triage-undo"),
    path("triage/<int:pk>/", feedback.OneTriage.as_view(), name="triage-item"),
    path("triage/<int:pk>/sort/", feedback.SortTriage.as_view(), name="triage-sort"),
    path("retrieval-questions/", feedback.RetrievalQuestions.as_view(), name="retrieval-questions"),
    path(
        "retrieval-questions/<int:pk>/",
        feedback.OneRetrievalQuestion.as_view(),
        name="retrieval-question",
    ),
    path("gaps/", feedback.Gaps.as_view(), name="gaps"),
    path("gaps/<int:pk>/", feedback.OneGap.as_view(), name="gap"),
    path("gaps/<int:pk>/merge/", feedback.MergeGap.as_view(), name="gap-merge"),
    path("gap-questions/<int:pk>/split/", feedback.SplitGap.as_view(), name="gap-split"),
    path("datasets/<int:pk>/draftings/", feedback.Draftings.as_view(), name="draftings"),
    path("draftings/<int:pk>/", feedback.OneDrafting.as_view(), name="drafting"),
    path("draftings/<int:pk>/stop/", feedback.StopDrafting.as_view(), name="drafting-stop"),
    path("draftings/<int:pk>/resume/", feedback.ResumeDrafting.as_view(), name="drafting-resume"),
    # --- Runs and adapters ---
    path("runs/", training.Runs.as_view(), name="runs"),
    path("runs/<int:pk>/", training.OneRun.as_view(), name="run"),
    path("runs/<int:pk>/start/", training.StartRun.as_view(), name="run-start"),
    path("runs/<int:pk>/cancel/", training.CancelRun.as_view(), name="run-cancel"),
    path("runs/<int:pk>/resume/", training.ResumeRun.as_view(), name="run-resume"),
    path("runs/<int:pk>/metrics/", training.Metrics.as_view(), name="run-metrics"),
    path("runs/<int:pk>/manifest/", runs.Manifest.as_view(), name="run-manifest"),
    path("runs/<int:pk>/log/", runs.Log.as_view(), name="run-log"),
    path("sweeps/", runs.Sweeps.as_view(), name="sweeps"),
    path("adapters/", training.Adapters.as_view(), name="adapters"),
    path("adapters/<int:pk>/", training.OneAdapter.as_view(), name="adapter"),
    # --- Evaluations ---
    path("adapters/<int:pk>/evaluations/", evaluations.Evaluations.as_view(), name="evaluations"),
    path("adapters/<int:pk>/arena/", evaluations.Arena.as_view(), name="arena"),
    path("adapters/<int:pk>/arena/draw/", evaluations.Draw.as_view(), name="arena-draw"),
    path("arena-votes/<int:pk>/", evaluations.Vote.as_view(), name="arena-vote"),
    path("evaluations/<int:pk>/", evaluations.OneEvaluation.as_view(), name="evaluation"),
    path("evaluations/<int:pk>/items/", evaluations.Items.as_view(), name="evaluation-items"),
    # --- Serving, the loop ---
    path("adapters/<int:pk>/activations/", serving.Activations.as_view(), name="activations"),
    path("adapters/<int:pk>/unload/", serving.Unloading.as_view(), name="adapter-unload"),
    path("activations/<int:pk>/", serving.OneActivation.as_view(), name="activation"),
    path("activations/<int:pk>/approve/", serving.Approval.as_view(), name="activation-approve"),
    path(
        "activations/<int:pk>/withdraw/", serving.Withdrawal.as_view(), name="activation-withdraw"
    ),
    path(
        "activations/<int:pk>/roll-back/", serving.RollBack.as_view(), name="activation-roll-back"
    ),
    path("datasets/<int:pk>/retrain-rule/", serving.Rule.as_view(), name="retrain-rule"),
    path("serving/", serving.Serving.as_view(), name="serving"),
    path("ledger/", serving.Ledger.as_view(), name="ledger"),
    path("erasures/", serving.Erasures.as_view(), name="erasures"),
]
