"""Which model speaks to whom."""

import pytest
from django.contrib.auth.models import Group

from kb.models import Collection, Conversation, ModelDeployment, User

pytestmark = pytest.mark.django_db
BASE = "tgi"


def speaks_to(user: User) -> str:
    conversation = Conversation.objects.create(user=user)
    deployment = ModelDeployment.objects.current_for(conversation, BASE)
    return deployment.adapter_name if deployment else ""


def deploy(name: str, *audience: Collection, **fields: object) -> ModelDeployment:
    made = ModelDeployment.objects.create(
        base_model=BASE, adapter_name=name, audience_size=len(audience), **fields
    )
    made.audience.set(audience)
    return made


def test_without_a_deployment_the_base_speaks(alice: User) -> None:
    assert speaks_to(alice) == ""


def test_the_newest_deployment_speaks_and_rolling_back_is_one_more(alice: User) -> None:
    deploy("first")
    deploy("second")
    assert speaks_to(alice) == "second"
    deploy("first")
    assert speaks_to(alice) == "first"
    deploy("")
    assert speaks_to(alice) == ""


def test_an_adapter_speaks_only_to_who_may_read_all_it_learned_from(
    collection: Collection, bob: User, charlie: User
) -> None:
    deploy("first", collection)
    assert speaks_to(bob) == "first"
    assert speaks_to(charlie) == ""
    deploy("second", collection, Collection.objects.create(name="Closed"))
    assert speaks_to(bob) == ""


def test_a_deleted_collection_opens_its_adapter_to_nobody(bob: User) -> None:
    closed = Collection.objects.create(name="Closed")
    deploy("first", closed)
    closed.delete()
    assert speaks_to(bob) == ""


def test_whom_a_canary_does_not_reach_keeps_the_former_adapter(
    collection: Collection, alice: User, bob: User
) -> None:
    former = deploy("former")
    testers = Group.objects.create(name="Testers")
    alice.groups.add(testers)
    deploy("canary", otherwise=former).groups.add(testers)
    assert (speaks_to(alice), speaks_to(bob)) == ("canary", "former")


def test_a_share_of_the_conversations_is_answered_and_each_keeps_its_side(alice: User) -> None:
    former = deploy("former")
    deploy("canary", share=0.3, otherwise=former)
    conversations = [Conversation.objects.create(user=alice) for _ in range(100)]
    names = [ModelDeployment.objects.current_for(c, BASE).adapter_name for c in conversations]  # type: ignore[union-attr]
    assert names.count("canary") == 30
    again = [ModelDeployment.objects.current_for(c, BASE).adapter_name for c in conversations]  # type: ignore[union-attr]
    assert names == again
