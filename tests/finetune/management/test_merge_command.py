"""A merged model answers everybody, so it is made only where everybody may be answered by it."""

import json
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from finetune.models import Adapter, AuditEvent, Dataset
from kb.models import Collection, User
from tests.finetune.activating import evaluate, make_adapter

pytestmark = pytest.mark.django_db


@pytest.fixture
def adapter(dataset: Dataset, tmp_path: Path, settings: Settings) -> Adapter:
    settings.DATA_DIR = tmp_path
    made = make_adapter(dataset, "notes-v1-0000000a", data_dir=tmp_path)
    made.run.config = {"base_model": str(tmp_path / "base")}
    made.run.save()
    return made


def merge(adapter: Adapter, folder: Path, **options: Any) -> str:
    out = StringIO()
    told = {"user": "alice", **options}
    call_command("merge_adapter", adapter.name, str(folder), stdout=out, **told)
    return out.getvalue()


def refused(adapter: Adapter, match: str, **options: Any) -> None:
    with pytest.raises(CommandError, match=match):
        merge(adapter, Path("/nowhere"), **options)
    assert not AuditEvent.objects.filter(action="exported").exists()


def open_to_everybody(adapter: Adapter) -> None:
    Collection.objects.filter(adapters=adapter).update(is_public=True)


def test_only_who_manages_the_adapter_merges_it(adapter: Adapter, bob: User) -> None:
    refused(adapter, "bob manages no adapter notes-v1-0000000a", user="bob")
    refused(adapter, "There is no administrator", user=None)


def test_an_adapter_that_did_not_pass_is_not_merged_without_a_reason(adapter: Adapter) -> None:
    open_to_everybody(adapter)
    refused(adapter, "was not evaluated")
    evaluate(adapter, passed=False)
    refused(adapter, "Token F1 fell by 12 %")
    refused(adapter, "Token F1 fell by 12 %", override="  ")


def test_what_was_erased_is_merged_for_no_reason(adapter: Adapter) -> None:
    open_to_everybody(adapter)
    evaluate(adapter)
    adapter.erasure_note = "It learned from “a.md”, which was erased."
    adapter.save()
    refused(adapter, "which was erased", override="I want it.", everybody_may_read=True)


def test_what_only_some_may_read_is_not_served_to_everybody(adapter: Adapter, alice: User) -> None:
    evaluate(adapter)
    refused(adapter, "“Field notes”, which not everybody may read")
    open_to_everybody(adapter)
    Adapter.objects.update(audience_size=2)
    User.objects.filter(pk=alice.pk).update(is_superuser=True)  # who alone sees it now
    refused(adapter, "a collection that was deleted, which not everybody may read")


@pytest.mark.train
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_manifest_and_the_log_keep_for_whom_it_is_and_by_whose_word(
    adapter: Adapter, base: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from tests.finetune.test_merging import trained

    placed = tmp_path / "adapters" / adapter.name
    shutil.rmtree(placed)
    (tmp_path / "run").mkdir()
    shutil.copytree(trained(base, tmp_path / "run"), placed)
    shutil.copytree(base, tmp_path / "base")

    told = merge(
        adapter, tmp_path / "merged", override="A trial.", everybody_may_read=True, dtype="float32"
    )

    assert "questions as the adapter did" in told
    manifest = json.loads((tmp_path / "merged" / "manifest.json").read_text())
    [collection] = adapter.audience.all()
    kept = {
        "audience": [{"id": collection.pk, "name": "Field notes"}],
        "audience_size": 1,
        "everybody_may_read": True,
        "evaluation": None,
        "gate": {"passed": False, "against": ["The adapter was not evaluated."]},
        "override_reason": "A trial.",
        "merged_by": "alice",
    }
    assert kept.items() <= manifest.items()
    card = (tmp_path / "merged" / "README.md").read_text()
    assert (
        "Not passed: The adapter was not evaluated. alice merged it nevertheless: A trial." in card
    )
    assert "Only people who may read all of: Field notes." in card
    event = AuditEvent.objects.get(action="exported", subject_kind="adapter")
    assert event.detail == {"merged": str(tmp_path / "merged"), **kept}
