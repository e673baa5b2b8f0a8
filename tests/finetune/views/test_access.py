"""Every page of curation and training answers a foreign id exactly like a missing one, and readers not at all.

The routes are read from finetune.urls, so that a new page is tested the day it is added.
"""

import re

import pytest
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, reverse

from finetune.models import (
    Activation,
    Adapter,
    Dataset,
    DatasetSnapshot,
    Drafting,
    DuplicateCluster,
    Evaluation,
    GapQuestion,
    InstructionPair,
    KnowledgeGap,
    PairImport,
    PairSource,
    SavedView,
    TrainingRun,
    TriageItem,
)
from finetune.urls import urlpatterns
from kb.models import Collection, Conversation, Job, Message, User
from tests.conftest import tried

pytestmark = pytest.mark.django_db
MISSING, SWEEP = 987_654_321, "5eeb"
WITH_ID = [route for route in urlpatterns if route.pattern.converters]
WITHOUT = [route for route in urlpatterns if not route.pattern.converters]


@pytest.fixture
def ids(
    alice: User, dataset: Dataset, pair: InstructionPair, collection: Collection
) -> dict[str, int]:
    """Give the id of a row of alice's by the word after "curate/" or "train/"; "" is a data set."""
    conversation = Conversation.objects.create(user=alice)
    answer = Message.objects.create(conversation=conversation, role="assistant", text="No.")
    item = TriageItem.objects.create(
        message=answer, collection=collection, signal="down", question="When?"
    )
    gap = KnowledgeGap.objects.create(collection=collection, title="When?")
    question = GapQuestion.objects.create(gap=gap, triage=item, text="When?", vector=[0.0])
    frozen = DatasetSnapshot.objects.create(
        dataset=dataset, number=2, job=Job.objects.create(kind=Job.Kind.FREEZE)
    )
    frozen.audience.add(collection)
    run = TrainingRun.objects.create(snapshot=frozen, name="Glaciers", sweep=SWEEP)
    adapter = Adapter.objects.create(run=run, name="glaciers-v1-00000000", audience_size=1)
    adapter.audience.add(collection)
    return {
        "": dataset.pk,
        "rule": dataset.pk,
        "run": run.pk,
        "adapter": adapter.pk,
        "arena": adapter.pk,
        "evaluation": Evaluation.objects.create(
            adapter=adapter, job=Job.objects.create(kind=Job.Kind.EVALUATE)
        ).pk,
        "activation": Activation.objects.create(adapter=adapter).pk,
        "pair": pair.pk,
        "view": SavedView.objects.create(user=alice, dataset=dataset, name="v").pk,
        "import": PairImport.objects.create(
            dataset=dataset, name="a", sha256="a", size_bytes=1, container="csv", format="alpaca"
        ).pk,
        "snapshot": DatasetSnapshot.objects.create(
            dataset=dataset, number=1, job=Job.objects.create(kind=Job.Kind.FREEZE)
        ).pk,
        "duplicates": DuplicateCluster.objects.create(
            dataset=dataset, kind="exact", key="a", size=1
        ).pk,
        "triage": item.pk,
        "gap": gap.pk,
        "gaps": gap.pk,
        "gap-question": question.pk,
        "drafting": Drafting.objects.create(
            dataset=dataset, wanted=1, job=Job.objects.create(kind=Job.Kind.DRAFT)
        ).pk,
    }


def address(route: URLPattern, ids: dict[str, int] | None) -> str:
    """Give the route's address for a row of alice's, or for none that there is."""
    path = re.sub("^(curate|train|loop)/", "", str(route.pattern))
    kind = path.partition("<")[0].strip("/").partition("/")[0]
    values: dict[str, object] = {}
    for name in route.pattern.converters:
        if name == "key":
            values[name] = SWEEP if ids else "nothing"
        else:
            values[name] = "delete" if name == "action" else ids[kind] if ids else MISSING
    return reverse(str(route.name), kwargs=values)


def send(client: Client, method: str, where: str) -> HttpResponse:
    sent: HttpResponse = getattr(client, method)(where)
    return sent


def bare(response: HttpResponse) -> tuple[int, bytes, dict[str, str]]:
    headers = {k: v for k, v in response.headers.items() if k not in ("Set-Cookie",)}
    return response.status_code, response.content, headers


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("who", ["bob", "charlie"])
def test_who_does_not_curate_gets_what_a_missing_id_gets(
    method: str,
    who: str,
    ids: dict[str, int],
    charlie: User,
    client: Client,
    subtests: pytest.Subtests,
) -> None:
    client.force_login(User.objects.get(username=who))
    for route in WITH_ID:
        with tried(subtests, str(route.name)):
            answer = send(client, method, address(route, ids))
            if route.name in ("adapter", "arena") and (who, method) == ("bob", "get"):
                assert answer.status_code == 200, "who may be served by an adapter sees what it is"
                continue
            assert answer.status_code in (404, 405)
            assert bare(answer) == bare(send(client, method, address(route, None)))


def test_a_pair_with_a_closed_source_is_as_good_as_missing(
    ids: dict[str, int],
    alice: User,
    pair: InstructionPair,
    client: Client,
    subtests: pytest.Subtests,
) -> None:
    PairSource.objects.create(
        pair=pair, marker=1, collection=Collection.objects.create(name="Closed"),
        document_name="a", document_key=1, title="A", start=0, end=1, text="a",
    )  # fmt: skip
    client.force_login(alice)
    for route in WITH_ID:
        if not str(route.pattern).startswith("curate/pair/"):
            continue
        for method in ("get", "post"):
            with tried(subtests, f"{method} {route.name}"):
                answer = send(client, method, address(route, ids))
                assert answer.status_code in (404, 405)
                assert bare(answer) == bare(send(client, method, address(route, None)))


def test_nobody_sees_anything_without_signing_in(
    ids: dict[str, int], client: Client, subtests: pytest.Subtests
) -> None:
    for route in urlpatterns:
        with tried(subtests, str(route.name)):
            answer = client.get(address(route, ids))
            assert answer.status_code == 302
            assert answer["Location"].startswith(reverse("login"))


def test_a_page_without_an_id_shows_others_nothing(
    ids: dict[str, int], charlie: User, client: Client, subtests: pytest.Subtests
) -> None:
    client.force_login(charlie)
    for route in WITHOUT:
        with tried(subtests, str(route.name)):
            answer = client.get(address(route, ids))
            assert answer.status_code in (200, 404, 405)
            page = answer.content.decode()
            assert "Glaciers" not in page
            assert "When?" not in page
            assert "Field notes" not in page
