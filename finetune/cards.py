"""The model card of an adapter, written from its manifest. Markdown."""

from collections.abc import Mapping
from typing import Any

from finetune import contract
from finetune.models import Adapter

_SETTINGS = (
    "method", "adapter", "rank", "alpha", "use_rslora", "use_dora", "quantize", "epochs",
    "batch_size", "accumulation", "learning_rate", "max_length", "packing", "seed",
)  # fmt: skip


def model_card(adapter: Adapter, manifest: Mapping[str, Any]) -> str:
    """Say what the adapter is, what it learned from, how, and who may be served by it."""
    run, snapshot = adapter.run, adapter.run.snapshot
    progress = manifest.get("progress", {})
    rows = snapshot.counts
    settings = [f"| {name} | {run.config[name]} |" for name in _SETTINGS if name in run.config]
    versions = [f"{name} {version}" for name, version in manifest.get("versions", {}).items()]
    audience = [collection.name for collection in adapter.audience.order_by("name")]
    return "\n".join(
        [
            f"# {adapter.name}",
            "",
            f"An adapter of `{adapter.base_model}`"
            + (f" at `{adapter.base_revision}`" if adapter.base_revision else "")
            + f", trained by Tacit on {snapshot}.",
            "",
            "## What it learned from",
            "",
            f"- Snapshot {snapshot}, SHA-256 `{snapshot.sha256}`",
            f"- {rows.get('train', 0):,} pairs to learn from, {rows.get('validation', 0):,} to choose"
            f" the best checkpoint, {rows.get('test', 0):,} kept for the test",
            f"- Prompt version {snapshot.prompt_version}",
            f"- Chat template SHA-256 `{manifest.get('template_sha256', '')}`",
            "",
            "## Who may be served by it",
            "",
            "Only people who may read all of: " + (", ".join(audience) or "nothing") + ".",
            "",
            "## How it was trained",
            "",
            "| Setting | Value |",
            "|---|---|",
            *settings,
            "",
            f"- Validation loss: {_nats(progress.get('base_loss'))} before,"
            f" {_nats(progress.get('best_loss'))} at step {progress.get('best_step', 0):,}",
            f"- {progress.get('seconds', 0):,.0f} s on {manifest.get('device', 'an unknown device')},"
            f" {progress.get('tokens', 0):,} tokens",
            f"- {', '.join(versions)}",
            "",
            "## Files",
            "",
            # Of what servers load; the reference beside it may lose what is erased.
            *(
                f"- `{name}` SHA-256 `{adapter.files[name]}`"
                for name in (contract.CONFIG, contract.WEIGHTS)
                if name in adapter.files
            ),
            "",
        ]
    )


def _nats(loss: float | None) -> str:
    return "not measured" if loss is None else f"{loss:.4f} nats a token"
