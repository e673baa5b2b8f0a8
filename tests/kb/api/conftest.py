import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.core.files.base import ContentFile
from django.utils import timezone

from finetune import curation, drafting, importing, triage
from finetune.drafts import Style
from finetune.models import (
    Activation,
    Adapter,
    ArenaVote,
    Cleaning,
    Dataset,
    DatasetSnapshot,
    Evaluation,
    InstructionPair,
    PairImport,
    TrainingRun,
    TriageItem,
)
from kb import chat
from kb.files import content_storage
from kb.models import ApiToken, Collection, Conversation, Document, Job, Message, User
from tests.kb.api.client import ApiClient, AsyncApiClient
from tests.kb.views.conftest import static_files_as_they_lie

__all__ = ["static_files_as_they_lie"]  # the page of the documentation has static files too

EVERYTHING = ("read", "ask", "write", "manage")


def secret_of(user: User, *scopes: str) -> str:
    expires_at = timezone.now() + timedelta(days=1)
    _, secret = ApiToken.objects.issue(
        user, name="test", scopes=list(scopes or EVERYTHING), expires_at=expires_at
    )
    return secret


def client_of(user: User, *scopes: str) -> ApiClient:
    """A program with a token of the person; with all scopes when none is named."""
    return ApiClient(headers={"Authorization": f"Bearer {secret_of(user, *scopes)}"})


def async_client_of(user: User, *scopes: str) -> AsyncApiClient:
    return AsyncApiClient(headers={"Authorization": f"Bearer {secret_of(user, *scopes)}"})


async def answers_finished() -> None:
    """Wait until no answer is written any more."""
    while chat._running:
        await asyncio.gather(*chat._running, return_exceptions=True)


@pytest.fixture
def as_alice(alice: User) -> ApiClient:
    """Owns the collection."""
    return client_of(alice)


@pytest.fixture
def as_bob(bob: User, collection: Collection) -> ApiClient:
    """Reads the collection."""
    return client_of(bob)


@pytest.fixture
def as_charlie(charlie: User) -> ApiClient:
    """Is a member of nothing."""
    return client_of(charlie)


GLACIER = "# Glacier\n\nThe glacier melts in late summer.\n\n# Moss\n\nMoss covers the stones.\n"


@pytest.fixture
def document(add_document: Callable[..., Document]) -> Document:
    """A document that is READY with one passage, as ingestion leaves it but quicker made."""
    document = add_document("notes.md", GLACIER, wait=False)
    version = document.newest_version
    version.chunks.create(
        document=document,
        collection_id=document.collection_id,
        position=0,
        start=0,
        end=len(GLACIER),
        page_first=1,
        page_last=1,
        heading_path=["Glacier"],
        text=GLACIER,
        text_hash="0" * 64,
        language="english",
        token_count=12,
    )
    Job.objects.filter(pk=version.job_id).update(state=Job.State.DONE)
    Document.objects.filter(pk=document.pk).update(
        state=Document.State.READY, current_version=version, page_count=1, chunk_count=1
    )
    document.refresh_from_db()
    return document


@pytest.fixture
def conversation(alice: User) -> Conversation:
    return Conversation.objects.create(user=alice, title="About ice")


@pytest.fixture
def answer(conversation: Conversation, document: Document) -> Message:
    """An answer that cites the first passage of `document`, below its question."""
    question = conversation.messages.create(role="user", text="When does the glacier melt?")
    answer = conversation.messages.create(
        role="assistant",
        text="In late summer [1].",
        parent=question,
        support=[{"start": 0, "end": 19, "markers": [1], "score": 0.9, "supported": True}],
        trace={"queries": ["glacier melt"], "hits": [{"chunk": 1, "title": document.title}]},
    )
    chunk = document.chunks.order_by("position")[0]
    answer.citations.create(
        marker=1,
        is_cited=True,
        chunk=chunk,
        version=document.current_version,
        document=document,
        collection=document.collection,
        title=document.title,
        start=chunk.start,
        end=chunk.end,
        quote=chunk.text,
    )
    return answer


@pytest.fixture
def pair_import(collection: Collection) -> PairImport:
    """A file of pairs in a data set, looked at and not started."""
    dataset = Dataset.objects.create(collection=collection, name="Ice")
    file = ContentFile(b'{"instruction": "Melts a glacier?", "output": "Yes."}')
    return importing.add_file(dataset, file, name="a.jsonl", user=collection.created_by)[0]


@pytest.fixture
def instruction_pair(pair_import: PairImport) -> InstructionPair:
    """A pair that waits to be judged, in the data set of `pair_import`."""
    content = {"instruction": "When does the glacier melt?", "output": "In August."}
    user, dataset = pair_import.created_by, pair_import.dataset
    return curation.create_pair(user, dataset, origin="typed", content=content)


@pytest.fixture
def feedback_ids(
    pair_import: PairImport, answer: Message, conversation: Conversation, alice: User
) -> dict[str, int]:
    """The ids of what a rated answer, a second one sorted as missing, and a drafting run leave."""
    question = conversation.messages.create(role="user", text="Who built the hut on the glacier?")
    missing = conversation.messages.create(
        role="assistant", parent=question, text="Not there.", found_nothing=True
    )
    for message in (answer, missing):
        message.rate(alice, -1)
    triage.collect()
    gap = triage.list_gap(TriageItem.objects.get(message=missing), alice)
    chunk = pair_import.dataset.collection.documents.get().chunks.select_related("document").get()
    choice = drafting.Choice((Style.FACTUAL,))
    return {
        "triage": TriageItem.objects.get(message=answer).pk,
        "gaps": gap.pk,
        "gap-questions": gap.questions.get().pk,
        "retrieval-questions": triage.add_question("When?", chunk, alice).pk,
        "draftings": drafting.start(pair_import.dataset, alice, wanted=1, choice=choice).pk,
    }


@pytest.fixture
def training_ids(pair_import: PairImport) -> dict[str, int]:
    """The ids of what a run and the evaluation and activation of its adapter leave."""
    dataset = pair_import.dataset
    stored = content_storage().put(iter([b'{"split": "train"}\n']), max_bytes=100)
    snapshot = DatasetSnapshot.objects.create(
        dataset=dataset,
        number=99,
        state=DatasetSnapshot.State.READY,
        file=stored.name,
        sha256=stored.sha256,
        job=Job.objects.create(kind=Job.Kind.FREEZE, state=Job.State.DONE),
    )
    snapshot.audience.add(dataset.collection)
    cleaning = Cleaning.objects.create(
        dataset=dataset, job=Job.objects.create(kind=Job.Kind.CLEAN, state=Job.State.DONE)
    )
    cluster = dataset.duplicate_clusters.create(kind="exact", key="0", size=1)
    run = TrainingRun.objects.create(snapshot=snapshot, name="First")
    adapter = Adapter.objects.create(run=run, name="first-v1-00000000", audience_size=1)
    adapter.audience.add(dataset.collection)
    job = Job.objects.create(kind=Job.Kind.EVALUATE)
    return {
        "snapshots": snapshot.pk,
        "cleanings": cleaning.pk,
        "duplicates": cluster.pk,
        "runs": run.pk,
        "adapters": adapter.pk,
        "activations": Activation.objects.create(adapter=adapter).pk,
        "evaluations": Evaluation.objects.create(adapter=adapter, job=job).pk,
        "arena-votes": ArenaVote.objects.create(
            adapter=adapter, question="When?", adapter_is_left=True, voter=pair_import.created_by
        ).pk,
    }
