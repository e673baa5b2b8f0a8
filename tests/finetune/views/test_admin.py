"""The back office opens every list and row of curation, and changes none of what is logged."""

import pytest
from django.test import Client
from django.urls import reverse

from finetune import curation
from finetune.admin import admin as back_office
from finetune.models import AuditEvent, Dataset, InstructionPair, Review
from kb.models import User

pytestmark = pytest.mark.django_db
MODELS = [m for m in back_office.site._registry if m._meta.app_label == "finetune"]


@pytest.fixture
def office(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root", "root@example.org", "x"))
    return client


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_list_opens_and_searches(
    office: Client, model: type, pair: InstructionPair, alice: User
) -> None:
    curation.approve(pair, alice)
    address = reverse(f"admin:finetune_{model._meta.model_name}_changelist")  # type: ignore[attr-defined]
    assert office.get(address).status_code == 200
    assert office.get(address, {"q": "7"}).status_code == 200


def test_a_pair_is_looked_at_and_not_changed(
    office: Client, pair: InstructionPair, alice: User
) -> None:
    curation.approve(pair, alice)
    for row in (pair, Review.objects.get(), AuditEvent.objects.get()):
        name = row._meta.model_name
        change = reverse(f"admin:finetune_{name}_change", args=[row.pk])
        assert office.get(change).status_code == 200
        assert office.post(change, {"state": "rejected"}).status_code == 403
        delete = reverse(f"admin:finetune_{name}_delete", args=[row.pk])
        assert office.post(delete, {"post": "yes"}).status_code == 403
        assert office.get(reverse(f"admin:finetune_{name}_add")).status_code == 403


def test_a_data_set_keeps_its_collection(office: Client, dataset: Dataset) -> None:
    change = reverse("admin:finetune_dataset_change", args=[dataset.pk])
    office.post(
        change, {"name": "Ice", "purpose": "training", "reviews_wanted": 2, "collection": 9}
    )
    dataset.refresh_from_db()
    assert (dataset.name, dataset.reviews_wanted, dataset.collection.name) == (
        "Ice", 2, "Field notes",
    )  # fmt: skip
