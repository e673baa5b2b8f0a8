"""The addresses of curation. Each part has its section."""

from django.urls import path

from finetune.views import (
    activation,
    datasets,
    draft,
    duplicates,
    erasure,
    evaluation,
    export,
    gaps,
    imports,
    loop,
    pair,
    pairs,
    progress,
    review,
    snapshots,
    training,
    triage,
    uses,
)

urlpatterns = [
    # --- Data sets and pairs ---
    path("curate/", datasets.curate, name="curate"),
    path("curate/new/", datasets.dataset_new, name="dataset_new"),
    path("curate/uses/", uses.document_uses, name="document_uses"),
    path("curate/<int:pk>/", pairs.dataset, name="dataset"),
    path("curate/<int:pk>/edit/", datasets.dataset_edit, name="dataset_edit"),
    path("curate/<int:pk>/pairs/new/", pair.pair_new, name="pair_new"),
    path("curate/<int:pk>/pairs/<slug:action>/", pairs.pairs_act, name="pairs_act"),
    path("curate/<int:pk>/views/", pairs.view_save, name="view_save"),
    path("curate/view/<int:pk>/delete/", pairs.view_delete, name="view_delete"),
    path("curate/pair/<int:pk>/", pair.pair, name="pair"),
    path("curate/pair/<int:pk>/edit/", pair.pair_edit, name="pair_edit"),
    path("curate/pair/<int:pk>/decide/", pair.pair_judge, name="pair_judge"),
    path("curate/pair/<int:pk>/reopen/", pair.pair_reopen, name="pair_reopen"),
    path("curate/pair/<int:pk>/delete/", pair.pair_delete, name="pair_delete"),
    path("curate/pair/<int:pk>/review/", review.review_judge, name="review_judge"),
    path("curate/<int:pk>/review/", review.review, name="review"),
    path("curate/<int:pk>/review/next/", review.review_next, name="review_next"),
    path("curate/<int:pk>/review/undo/", review.review_undo, name="review_undo"),
    path("curate/<int:pk>/review/hold/", review.review_hold, name="review_hold"),
    path("curate/<int:pk>/progress/", progress.progress, name="progress"),
    path("curate/<int:pk>/audit/", progress.audit, name="audit"),
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
    path("curate/<int:pk>/duplicates/", duplicates.duplicates, name="duplicates"),
    path("curate/<int:pk>/duplicates/find/", duplicates.duplicates_find, name="duplicates_find"),
    path("curate/<int:pk>/duplicates/state/", duplicates.duplicates_state, name="duplicates_state"),
    path(
        "curate/<int:pk>/duplicates/decide/",
        duplicates.duplicates_decide_all,
        name="duplicates_decide_all",
    ),
    path(
        "curate/duplicates/<int:pk>/decide/", duplicates.duplicates_decide, name="duplicates_decide"
    ),
    path("curate/<int:pk>/snapshots/", snapshots.snapshots, name="snapshots"),
    path("curate/snapshot/<int:pk>/", snapshots.snapshot, name="snapshot"),
    path("curate/snapshot/<int:pk>/state/", snapshots.snapshot_state, name="snapshot_state"),
    path("curate/snapshot/<int:pk>/file/", snapshots.snapshot_file, name="snapshot_file"),
    path(
        "curate/snapshot/<int:pk>/manifest/", snapshots.snapshot_manifest, name="snapshot_manifest"
    ),
    path("curate/snapshot/<int:pk>/delete/", erasure.snapshot_delete, name="snapshot_delete"),
    # --- Feedback, gaps, drafts ---
    path("curate/triage/", triage.triage_list, name="triage"),
    path("curate/triage/undo/", triage.triage_undo, name="triage_undo"),
    path("curate/triage/<int:pk>/", triage.triage_item, name="triage_item"),
    path("curate/triage/<int:pk>/sort/", triage.triage_sort, name="triage_sort"),
    path("curate/gaps/", gaps.gaps, name="gaps"),
    path("curate/gaps/<int:pk>/", gaps.gap, name="gap"),
    path("curate/gaps/<int:pk>/edit/", gaps.gap_edit, name="gap_edit"),
    path("curate/gaps/<int:pk>/close/", gaps.gap_close, name="gap_close"),
    path("curate/gaps/<int:pk>/merge/", gaps.gap_merge, name="gap_merge"),
    path("curate/gap-question/<int:pk>/split/", gaps.gap_split, name="gap_split"),
    path("curate/<int:pk>/draft/", draft.draft, name="draft"),
    path("curate/drafting/<int:pk>/", draft.drafting_state, name="drafting_state"),
    path("curate/drafting/<int:pk>/stop/", draft.drafting_stop, name="drafting_stop"),
    path("curate/drafting/<int:pk>/go-on/", draft.drafting_go_on, name="drafting_go_on"),
    # --- Runs and adapters ---
    path("train/", training.train, name="train"),
    path("train/new/", training.run_new, name="run_new"),
    path("train/run/<int:pk>/", training.run, name="run"),
    path("train/run/<int:pk>/start/", training.run_start, name="run_start"),
    path("train/run/<int:pk>/cancel/", training.run_cancel, name="run_cancel"),
    path("train/run/<int:pk>/resume/", training.run_resume, name="run_resume"),
    path("train/run/<int:pk>/delete/", erasure.run_delete, name="run_delete"),
    path("train/sweep/<slug:key>/", training.sweep, name="sweep"),
    path("train/sweep/<slug:key>/start/", training.sweep_start, name="sweep_start"),
    path("train/adapters/", training.adapters, name="adapters"),
    path("train/adapter/<int:pk>/", training.adapter, name="adapter"),
    # --- Serving, the loop ---
    path("loop/", loop.loop, name="loop"),
    path("loop/rule/<int:pk>/", loop.rule, name="rule"),
    path("train/ledger/", loop.ledger_page, name="ledger"),
    path("train/erasure/", erasure.erasure, name="erasure"),
    path("train/activations/", activation.activations, name="activations"),
    path("train/adapter/<int:pk>/activate/", activation.activate, name="activate"),
    path("train/adapter/<int:pk>/retire/", activation.adapter_retire, name="adapter_retire"),
    path("train/activation/<int:pk>/", activation.activation, name="activation"),
    path(
        "train/activation/<int:pk>/approve/",
        activation.activation_approve,
        name="activation_approve",
    ),
    path(
        "train/activation/<int:pk>/withdraw/",
        activation.activation_withdraw,
        name="activation_withdraw",
    ),
    path("train/activation/<int:pk>/back/", activation.activation_back, name="activation_back"),
    # --- Evaluations and the arena ---
    path("train/adapter/<int:pk>/evaluate/", evaluation.adapter_evaluate, name="adapter_evaluate"),
    path("train/evaluation/<int:pk>/", evaluation.evaluation, name="evaluation"),
    path("train/arena/<int:pk>/", evaluation.arena, name="arena"),
]
