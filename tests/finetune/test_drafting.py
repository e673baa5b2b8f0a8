from collections.abc import Callable, Iterator

import pytest
from pytest_django.fixtures import Settings

from finetune import drafting, drafts
from finetune.drafting import Choice
from finetune.drafts import Style
from finetune.models import AuditEvent, Dataset, Drafting, InstructionPair
from kb.backends import get_backend
from kb.models import Collection, Document, Job, User
from kb.prompts import NOT_IN_DOCUMENTS
from tests.conftest import AddDocument
from tests.model_server import ModelServer, answering

pytestmark = pytest.mark.django_db
PLAIN = {"distractors": 0, "abstentions": 0}
SUBJECTS = {
    "Glaciers": "The glacier melts in late summer, and its long tongue reaches the valley floor.",
    "Rivers": "The river freezes in January, carries trout and floods the lower meadows in spring.",
    "Moss": "Moss covers the northern stones and keeps the water of a whole week of rain.",
    "Birds": "The eagle nests on the eastern cliff and hunts hares in the early morning hours.",
}


def page(number: int) -> str:
    parts = (f"## {name} {number}\n\n{text}\n" for name, text in SUBJECTS.items())
    return f"# Notes {number}\n\n" + "\n".join(parts)


@pytest.fixture
def notes(add_document: AddDocument) -> Document:
    return add_document("notes.md", page(1))


Run = Callable[..., Drafting]


@pytest.fixture
def run(dataset: Dataset, alice: User) -> Run:
    """Start a run and do its work here, as a worker would."""

    def start(wanted: int = 4, styles: tuple[Style, ...] = (Style.FACTUAL,), **choice: object):
        started = drafting.start(
            dataset, alice, wanted=wanted, choice=Choice(styles, **{**PLAIN, **choice})
        )
        work()
        started.refresh_from_db()
        return started

    return start


def work() -> Job:
    job = Job.objects.claim(Job.Kind.DRAFT)
    assert job is not None
    drafting.draft(job)
    job.refresh_from_db()
    return job


def test_headings_become_suggested_pairs_with_their_passages(
    notes: Document, run: Run, alice: User
) -> None:
    made = run()

    pairs = list(InstructionPair.objects.all())
    assert len(pairs) == made.written == 4
    assert made.job.state == Job.State.DONE
    for pair in pairs:
        assert (pair.origin, pair.state) == ("passage", "suggested")
        assert pair.author_label == drafting.EXTRACTIVE_LABEL
        assert pair.tags == ["draft", "factual"]
        source = pair.sources.get()
        assert notes.current_version.text[source.start : source.end] == source.text
        assert pair.output.removesuffix(" [1]") in source.text
        assert pair.support == 1
    assert AuditEvent.objects.filter(action="drafted").count() == 1


def test_nothing_is_drafted_twice_from_the_same_words(
    notes: Document, run: Run, add_document: AddDocument
) -> None:
    run()
    again = run()
    assert again.written == 0
    assert again.problems == {drafting.KNOWN: 4}
    add_document("copy.md", page(1))
    assert run().written == 0


def test_a_nearly_equal_passage_gives_no_second_pair(
    notes: Document, run: Run, add_document: AddDocument
) -> None:
    run()
    add_document("other.md", page(1).replace("eastern", "western"))

    assert drafting.SAME_WORDS in run().problems


def test_documents_without_pairs_come_first(
    notes: Document, run: Run, add_document: AddDocument
) -> None:
    run(wanted=1)
    other = add_document("other.md", "# Boats\n\n## Ferries\n\nThe ferry leaves the harbour at nine"
                         " and returns at noon with mail and fresh bread for the island.\n")  # fmt: skip
    run(wanted=1)

    newest = InstructionPair.objects.order_by("pk").last()
    assert newest.sources.get().document == other


def test_only_chosen_documents_are_taken(
    notes: Document, run: Run, add_document: AddDocument
) -> None:
    other = add_document("other.md", page(2))
    run(documents=[other.pk])

    assert set(InstructionPair.objects.values_list("sources__document", flat=True)) == {other.pk}


def test_what_the_person_may_not_read_is_never_drafted_from(
    run: Run, add_document: AddDocument, dataset: Dataset
) -> None:
    closed = Collection.objects.create(name="Closed")
    add_document("closed.md", page(1), to=closed)
    made = run(collections=[closed.pk, dataset.collection_id])

    assert made.job.state == Job.State.FAILED
    assert made.job.error == drafting.NOTHING
    assert not InstructionPair.objects.exists()


def test_a_follow_up_has_the_turns_before_it(notes: Document, run: Run) -> None:
    run(wanted=1, styles=(Style.FOLLOW_UP,))

    pair = InstructionPair.objects.get()
    assert [turn["role"] for turn in pair.messages] == ["user", "assistant"]
    assert pair.instruction.startswith("And about")
    assert [source.marker for source in pair.sources.order_by("marker")] == [1, 2]


def test_among_distractors_the_right_passage_is_cited_where_it_stands(
    notes: Document, run: Run
) -> None:
    run(distractors=100)

    pairs = list(InstructionPair.objects.filter(origin="distractor"))
    assert len(pairs) == 4
    for pair in pairs:
        right = pair.sources.get(is_distractor=False)
        assert pair.output.endswith(f"[{right.marker}]")
        assert pair.output.rpartition(" [")[0] in right.text
        assert pair.sources.filter(is_distractor=True).count() == drafting.DISTRACTORS
        assert pair.support == 1
    assert len({pair.sources.get(is_distractor=False).marker for pair in pairs}) > 1


def test_without_the_right_passage_the_answer_is_not_in_the_documents(
    notes: Document, run: Run
) -> None:
    run(abstentions=100)

    for pair in InstructionPair.objects.all():
        assert (pair.origin, pair.output) == ("abstention", NOT_IN_DOCUMENTS)
        assert pair.sources.exists()
        assert not pair.sources.filter(is_distractor=False).exists()
        left_out = pair.extra["left_out"]
        assert not pair.sources.filter(start=left_out["start"]).exists()
        assert notes.pk == left_out["document"]


def test_a_killed_worker_leaves_no_double_and_no_hole(
    notes: Document, dataset: Dataset, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = drafting.start(dataset, alice, wanted=4, choice=Choice((Style.FACTUAL,), **PLAIN))
    original, calls = drafting._write, []

    def dies_at_third(*arguments: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        original(*arguments)

    monkeypatch.setattr(drafting, "_write", dies_at_third)
    with pytest.raises(KeyboardInterrupt):
        work()
    monkeypatch.setattr(drafting, "_write", original)
    assert InstructionPair.objects.count() == 2
    Job.objects.update(lease_until="2026-01-01T00:00Z")

    assert work().state == Job.State.DONE
    run.refresh_from_db()
    assert InstructionPair.objects.count() == run.written == 4
    assert len(set(InstructionPair.objects.values_list("origin_key", flat=True))) == 4
    assert run.problems == {}


def test_a_run_is_stopped_and_goes_on(
    notes: Document, dataset: Dataset, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = drafting.start(dataset, alice, wanted=4, choice=Choice((Style.FACTUAL,), **PLAIN))
    original = drafting._draft_one

    def stops_after_one(run: Drafting, *arguments: object) -> drafting.Step:
        if run.written == 1:
            assert drafting.stop(run)
        return original(run, *arguments)

    monkeypatch.setattr(drafting, "_draft_one", stops_after_one)
    assert work().state == Job.State.CANCELLED
    assert InstructionPair.objects.count() == 1
    monkeypatch.setattr(drafting, "_draft_one", original)
    run.job.refresh_from_db()
    assert drafting.go_on(run)
    assert not drafting.stop(Drafting(job_id=0))
    assert work().state == Job.State.DONE
    assert InstructionPair.objects.count() == 4


def test_one_run_a_data_set_at_a_time(notes: Document, dataset: Dataset, alice: User) -> None:
    choice = Choice((Style.FACTUAL,))
    first = drafting.start(dataset, alice, wanted=4, choice=choice)

    assert drafting.start(dataset, alice, wanted=9, choice=choice) == first


@pytest.fixture
def asks_model(settings: Settings, model_server: ModelServer) -> Iterator[ModelServer]:
    with answering(settings, url=model_server.url, base_model="stub-normal"):
        yield model_server


def test_a_model_server_drafts_in_every_style(
    asks_model: ModelServer, notes: Document, run: Run
) -> None:
    made = run(wanted=8, styles=tuple(Style))

    assert made.job.state == Job.State.DONE
    assert made.author_label == "Generated by stub-normal"
    tags = {tag for pair in InstructionPair.objects.all() for tag in pair.tags}
    assert {"factual", "how-to", "comparison", "yes-no", "follow-up"} <= tags
    comparison = InstructionPair.objects.filter(tags__contains=["comparison"]).first()
    assert comparison.sources.count() == 2


@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [("hostile", drafts.NOT_READ), ("unsupported", None), ("uncited", drafts.NO_CITATION)],
)
def test_bad_drafts_are_counted_and_not_written(
    asks_model: ModelServer, notes: Document, run: Run, behaviour: str, problem: str | None
) -> None:
    get_backend("GENERATOR").base_model = f"stub-{behaviour}"
    made = run()

    if problem:
        assert made.written == 0
        assert made.problems == {problem: 4}
    else:
        assert made.written == 4


def test_a_model_server_that_is_away_puts_the_run_back(
    asks_model: ModelServer, notes: Document, run: Run
) -> None:
    get_backend("GENERATOR").base_model = "stub-503"
    made = run()

    assert made.job.state == Job.State.WAITING
    assert made.job.attempts == 0
    Job.objects.update(not_before="2026-01-01T00:00Z")
    get_backend("GENERATOR").base_model = "stub-normal"
    assert work().state == Job.State.DONE
    assert InstructionPair.objects.count() == 4


def test_a_server_that_refuses_ends_the_run(
    asks_model: ModelServer, notes: Document, run: Run
) -> None:
    get_backend("GENERATOR").base_model = "stub-404"

    assert run().job.state == Job.State.FAILED
