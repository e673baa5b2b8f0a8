"""What is frozen is split without leaks, hashed, and the same again."""

import json
import random
from dataclasses import asdict
from hashlib import sha256
from typing import Any

import pytest

from finetune import curation, duplicates, minhash, quality, snapshots
from finetune.models import AuditEvent, Dataset, DatasetSnapshot, InstructionPair, PairSource
from kb.models import Collection, Document, Job, User
from kb.prompts import NOT_IN_DOCUMENTS
from tests.conftest import AddDocument

pytestmark = pytest.mark.django_db
Write = Any
PASSAGE = "The glacier loses most of its ice in August. Snow falls from November until March."


def write_pair(dataset: Dataset, instruction: str, output: str, **fields: Any) -> InstructionPair:
    sources = fields.pop("sources", [])
    said = {
        name: fields[name] for name in ("input", "system", "messages", "rejected") if name in fields
    }
    measured = asdict(quality.measure(instruction=instruction, output=output, **said))
    pair = InstructionPair.objects.create(
        instruction=instruction,
        output=output,
        **{"dataset": dataset, "collection": dataset.collection, "origin": "typed",
           "state": "approved", **measured, **fields},
    )  # fmt: skip
    for marker, (collection, document) in enumerate(sources, start=1):
        PairSource.objects.create(
            pair=pair, marker=marker, collection=collection, document_name="a.md",
            document_key=abs(document), is_distractor=document < 0, title="Glaciers", start=0,
            end=len(PASSAGE), text=PASSAGE,
            # No such document is there; somebody approved the pair in spite of it.
            standing="gone",
        )  # fmt: skip
    return pair


@pytest.fixture
def write(dataset: Dataset) -> Write:
    def write(instruction: str, output: str, **fields: Any) -> InstructionPair:
        return write_pair(fields.pop("dataset", dataset), instruction, output, **fields)

    return write


def freeze(dataset: Dataset, user: User | None, **parameters: Any) -> DatasetSnapshot:
    made = snapshots.start(dataset, user, **parameters)
    job = Job.objects.claim(Job.Kind.FREEZE)
    assert job is not None
    snapshots.freeze(job)
    made.refresh_from_db()
    return made


WORDS = [f"{a}{b}{c}" for a in "bcdfglmnprst" for b in "aeiou" for c in "bdklmnrst"]


def sentence(rng: random.Random, length: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(length))


def fill(dataset: Dataset, seed: int, count: int = 60) -> list[InstructionPair]:
    """Write unlike pairs, some of one document, and some that nearly repeat another."""
    rng = random.Random(seed)
    pairs: list[InstructionPair] = []
    for _ in range(count):
        if pairs and rng.random() < 0.3:
            model = rng.choice(pairs)
            words = model.output.split()
            words[rng.randrange(len(words))] = rng.choice(WORDS)
            pairs.append(write_pair(dataset, model.instruction, " ".join(words)))
            continue
        documents = [(dataset.collection, rng.randint(1, 20))] if rng.random() < 0.5 else []
        output = sentence(rng, rng.randint(25, 60))
        pairs.append(write_pair(dataset, sentence(rng, 8), output, sources=documents))
    return pairs


@pytest.mark.parametrize("seed", range(4))
def test_no_near_duplicate_and_no_document_stands_in_two_parts(
    dataset: Dataset, alice: User, seed: int
) -> None:
    pairs = {pair.pk: pair for pair in fill(dataset, seed)}
    snapshot = freeze(dataset, alice, seed=seed, train_share=0.6, validation_share=0.2)
    rows = list(snapshot.rows.all())
    assert len(rows) == len(pairs)
    assert all(count > 0 for count in snapshot.counts.values())
    parts_of: dict[int, set[str]] = {}
    for row in rows:
        for document in row.document_keys:
            parts_of.setdefault(document, set()).add(row.split)
    assert parts_of
    assert all(len(parts) == 1 for parts in parts_of.values())
    fields = {
        key: minhash.fields(*minhash.words_of([], pair.instruction, pair.input, pair.output))
        for key, pair in pairs.items()
    }
    near = 0
    for place, one in enumerate(rows):
        for other in rows[:place]:
            if minhash.similarity(fields[one.pair_id], fields[other.pair_id]) >= minhash.NEAR:
                near += 1
                assert one.split == other.split
    assert near > 5
    assert [snapshot.leakage["between"][kind] for kind in ("exact", "near", "documents")] == [
        0,
        0,
        0,
    ]


def test_the_same_snapshot_frozen_twice_has_the_same_hash(dataset: Dataset, alice: User) -> None:
    fill(dataset, 1, 30)
    one, two = freeze(dataset, alice, seed=7), freeze(dataset, alice, seed=7)
    assert (one.number, two.number) == (1, 2)
    assert one.sha256 == two.sha256
    assert freeze(dataset, alice, seed=8).sha256 != one.sha256
    with one.file.open() as file:
        content = file.read()
    assert sha256(content).hexdigest() == one.sha256
    assert content.decode().splitlines() == [row.line for row in one.rows.order_by("position")]


def test_a_line_holds_the_prompt_of_a_chat_and_the_answer(
    dataset: Dataset, collection: Collection, alice: User, write: Write
) -> None:
    pair = write(
        "When does it melt?", "In August [1].", sources=[(collection, 3)], rejected="In May.",
        messages=[{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}],
    )  # fmt: skip
    snapshot = freeze(dataset, alice)
    line = json.loads(snapshot.rows.get().line)
    system, hello, hi, question, answer = line["messages"]
    assert "only the sources given" in system["content"]
    assert (hello["content"], hi["content"]) == ("Hello", "Hi.")
    assert PASSAGE in question["content"]
    assert question["content"].endswith("Question: When does it melt?")
    assert answer == {"role": "assistant", "content": "In August [1]."}
    assert (line["rejected"], line["pair"], line["documents"]) == ("In May.", pair.pk, [3])
    fence = system["content"].split("carry the mark ")[1].split(".")[0]
    assert f"<<<{fence} source [1]: Glaciers" in question["content"]


def test_a_pair_without_passages_is_a_plain_conversation(
    dataset: Dataset, alice: User, write: Write
) -> None:
    write("Rewrite this.", "The ice melts.", input="Ice melt.", system="Be brief.")
    messages = json.loads(freeze(dataset, alice).rows.get().line)["messages"]
    assert [(turn["role"], turn["content"]) for turn in messages] == [
        ("system", "Be brief."), ("user", "Rewrite this.\n\nIce melt."),
        ("assistant", "The ice melts."),
    ]  # fmt: skip


def test_what_is_not_in_the_documents_is_asked_as_in_a_chat(
    dataset: Dataset, alice: User, write: Write
) -> None:
    write("Who owns it?", NOT_IN_DOCUMENTS)
    messages = json.loads(freeze(dataset, alice).rows.get().line)["messages"]
    assert messages[1]["content"].startswith("Sources: none were found.")


def test_only_approved_pairs_with_open_sources_go_in(
    dataset: Dataset, collection: Collection, alice: User, write: Write
) -> None:
    kept = write("When does it melt?", "In August.", sources=[(collection, 1)])
    write("Who?", "Nobody.", state="suggested")
    write("Where?", "There.", sources=[(None, 2)])
    for question in ("Why?", "What for?"):
        write(question, "Because.", sources=[(Collection.objects.create(name=question), 3)])
    write("How?", "", rejected="Badly.")
    snapshot = freeze(dataset, alice)
    assert [row.pair_id for row in snapshot.rows.all()] == [kept.pk]
    assert snapshot.statistics["excluded"] == {
        "lost_source": 1, "hidden_source": 1, "no_output": 1,
    }  # fmt: skip


@pytest.fixture
def ice(add_document: AddDocument) -> Document:
    return add_document("ice.md", "# Ice\n\nThe glacier melts in late summer.\n")


@pytest.fixture
def about_ice(dataset: Dataset, ice: Document, alice: User) -> InstructionPair:
    chunk = ice.chunks.select_related("document", "version").get()
    pair = curation.create_pair(
        alice, dataset, origin="typed", content={"instruction": "When?", "output": "Late [1]."},
        sources=[curation.source_of_chunk(chunk, 1)],
    )  # fmt: skip
    return curation.approve(pair, alice)


def test_what_was_deleted_or_changed_a_moment_ago_is_not_frozen(
    dataset: Dataset, alice: User, ice: Document, about_ice: InstructionPair, write: Write,
    add_document: AddDocument,
) -> None:  # fmt: skip
    kept = write("Who?", "Nobody.")
    assert freeze(dataset, alice).rows.count() == 2
    add_document("ice.md", "# Ice\n\nThe glacier melts in June, says everybody here.\n")
    assert list(freeze(dataset, alice).rows.values_list("pair", flat=True)) == [kept.pk]
    about_ice.refresh_from_db()
    assert about_ice.state == "stale"

    InstructionPair.objects.filter(pk=about_ice.pk).update(state="approved")
    assert freeze(dataset, alice).rows.count() == 2
    ice.delete()
    assert list(freeze(dataset, alice).rows.values_list("pair", flat=True)) == [kept.pk]


@pytest.mark.parametrize("is_deleted", [True, False])
def test_what_changes_while_pairs_are_read_is_left_out(
    dataset: Dataset, alice: User, ice: Document, about_ice: InstructionPair, is_deleted: bool,
    add_document: AddDocument,
) -> None:  # fmt: skip
    if is_deleted:
        ice.delete()
    else:
        add_document("ice.md", "# Ice\n\nThe glacier melts in June, says everybody here.\n")

    rows, excluded = snapshots.load(dataset, alice)

    assert (rows, excluded) == ([], {"changed_source": 1})


def test_a_document_that_only_an_imported_file_names_stands_in_one_part(
    dataset: Dataset, collection: Collection, alice: User, write: Write
) -> None:
    rng = random.Random(9)

    def carried(document: object, **more: object) -> dict[str, Any]:
        return {"provenance": {"sources": [{"document": document, "marker": 1, **more}]}}

    for _ in range(6):
        write(sentence(rng, 8), sentence(rng, 20), extra=carried("ice.md"))
    # Here it is known by its id as well; such sources are called "a.md".
    write(sentence(rng, 8), sentence(rng, 20), extra=carried("a.md"))
    write(sentence(rng, 8), sentence(rng, 20), sources=[(collection, 5)])
    for number in range(12):
        extra = carried("far.md", is_distractor=True) if number < 4 else carried([number])
        write(sentence(rng, 8), sentence(rng, 20), extra=extra if number < 8 else {})
    snapshot = freeze(dataset, alice, train_share=0.5, validation_share=0.25)

    rows = list(snapshot.rows.order_by("pair_id"))
    assert len({row.group for row in rows[:6]}) == 1
    assert len({row.group for row in rows[6:8]}) == 1
    assert len({row.group for row in rows}) == 14
    assert snapshot.leakage["between"]["documents"] == 0
    assert snapshot.statistics["documents"] == 2
    loaded, _ = snapshots.load(dataset, alice)
    for row in loaded:
        row.part = "train" if row.place % 2 else "test"
    report = snapshots.leaks_between(loaded, duplicates.vectors_of([r.pair.pk for r in loaded]))
    assert (report["documents"], report["distractors"]) == (2, 3)


def test_nothing_approved_fails_with_a_sentence(dataset: Dataset, alice: User) -> None:
    snapshot = freeze(dataset, alice)
    assert snapshot.state == "failed"
    assert snapshot.job.error == snapshots.NOTHING


def test_a_planted_leak_into_an_evaluation_set_is_reported(
    dataset: Dataset, alice: User, write: Write
) -> None:
    other = Collection.objects.create(name="Exams")
    exam = Dataset.objects.create(collection=other, name="Exam", purpose="evaluation")
    pairs = fill(dataset, 2, 12)
    exact = write(pairs[0].instruction, pairs[0].output, dataset=exam, state="suggested")
    near = write(pairs[1].instruction, pairs[1].output + " and so on", dataset=exam)
    turned = " ".join(reversed(pairs[2].output.split()))
    write(" ".join(reversed(pairs[2].instruction.split())), turned, dataset=exam)
    assert freeze(dataset, alice).leakage["evaluation"] == [], "she may not see it"
    other.memberships.create(user=alice, role="curator")
    [leak] = freeze(dataset, alice).leakage["evaluation"]
    assert (leak["dataset"], leak["pairs"]) == (exam.pk, 3)
    assert any(one == pairs[0].pk and two == exact.pk for one, _, two, _ in leak["shown"]["exact"])
    assert any(one == pairs[1].pk and two == near.pk for one, _, two, _ in leak["shown"]["near"])
    assert leak["meaning"] >= 3


def test_a_planted_leak_between_parts_is_reported(
    dataset: Dataset, collection: Collection, alice: User, write: Write
) -> None:
    rng = random.Random(3)
    text = sentence(rng, 30)
    write("When does it melt?", text, sources=[(collection, 1), (collection, -9)])
    write("When does it melt?", text)
    write("When does it melt?", text + " indeed", sources=[(collection, 1)])
    write("Who was there?", sentence(rng, 30), sources=[(collection, -9)])
    rows, _ = snapshots.load(dataset, alice)
    for row, part in zip(rows, ("train", "test", "validation", "test"), strict=True):
        row.part = part
    vectors = duplicates.vectors_of([row.pair.pk for row in rows])
    report = snapshots.leaks_between(rows, vectors)
    assert (report["exact"], report["near"], report["documents"]) == (1, 2, 1)
    assert report["distractors"] == 2
    assert report["meaning"] == 3
    assert report["shown"]["exact"] == [[rows[0].pair.pk, "train", rows[1].pair.pk, "test", 1.0]]


def test_what_belongs_together_besides_words_stays_together(
    dataset: Dataset, alice: User, write: Write
) -> None:
    rng = random.Random(4)
    passage = sentence(rng, 40)
    for _ in range(8):
        write(sentence(rng, 8), sentence(rng, 20), input=passage)
    for _ in range(12):
        write(sentence(rng, 8), sentence(rng, 20))
    snapshot = freeze(dataset, alice, train_share=0.5, validation_share=0.25)
    together = snapshot.rows.filter(line__contains=passage)
    assert together.count() == 8
    assert len(set(together.values_list("split", flat=True))) == 1


def test_the_audience_is_every_collection_of_its_sources(
    dataset: Dataset, collection: Collection, alice: User, bob: User, write: Write
) -> None:
    second = Collection.objects.create(name="Second", is_public=True)
    write("When does it melt?", "In August.", sources=[(second, 1)])
    snapshot = freeze(dataset, alice)
    assert set(snapshot.audience.all()) == {collection, second}
    assert DatasetSnapshot.objects.visible_to(alice).get() == snapshot
    assert not DatasetSnapshot.objects.visible_to(bob)
    Collection.objects.filter(pk=second.pk).update(is_public=False)
    assert not DatasetSnapshot.objects.visible_to(alice)


def test_a_deleted_collection_does_not_widen_the_audience(
    dataset: Dataset, alice: User, write: Write
) -> None:
    second = Collection.objects.create(name="Second", is_public=True)
    write("When does it melt?", "In August.", sources=[(second, 1)])
    snapshot = freeze(dataset, alice)
    second.remove()
    snapshot.refresh_from_db()
    assert snapshot.has_lost_sources
    assert not DatasetSnapshot.objects.visible_to(alice)


def test_a_snapshot_is_reproduced_from_its_manifest(
    dataset: Dataset, alice: User, write: Write
) -> None:
    fill(dataset, 5, 20)
    snapshot = freeze(dataset, alice)
    made = snapshots.reproduce(snapshot)
    assert (made.sha256, made.is_same, made.rendered, made.kept) == (snapshot.sha256, True, 20, [])
    first, second, *_ = dataset.pairs.order_by("pk")
    curation.edit(first, alice, {"output": "Something else entirely."})
    key = second.pk
    second.delete()
    made = snapshots.reproduce(snapshot)
    assert (made.is_same, made.rendered, sorted(made.kept)) == (True, 18, [first.pk, key])


def test_two_snapshots_are_compared(dataset: Dataset, alice: User, write: Write) -> None:
    pairs = fill(dataset, 6, 20)
    one = freeze(dataset, alice, seed=1)
    InstructionPair.objects.filter(pk=pairs[0].pk).update(state="rejected")
    InstructionPair.objects.filter(pk=pairs[1].pk).update(output="New.", content_hash="f" * 64)
    added = write("Which one is new?", "This is the new one.")
    difference = snapshots.compare(one, freeze(dataset, alice, seed=2))
    assert difference.added == [added.pk]
    assert difference.removed == [pairs[0].pk]
    assert difference.changed == [pairs[1].pk]
    assert difference.moved


def test_a_document_names_the_snapshots_that_hold_its_words(
    dataset: Dataset, collection: Collection, alice: User, write: Write
) -> None:
    write("When does it melt?", "In August.", sources=[(collection, 41), (collection, -42)])
    snapshot = freeze(dataset, alice)
    assert snapshots.using_document(41).get() == snapshot
    assert snapshots.using_document(42).get() == snapshot
    assert snapshots.using_document(4, 41, 42).get() == snapshot
    assert snapshots.using_document(4, 42).get() == snapshot
    assert not snapshots.using_document(4)
    assert not snapshots.using_document()


def test_counts_and_tokens_are_told_by_part(dataset: Dataset, alice: User) -> None:
    fill(dataset, 7, 30)
    snapshot = freeze(dataset, alice)
    assert sum(snapshot.counts.values()) == 30
    tokens = snapshot.statistics["tokens"]
    for part, count in snapshot.counts.items():
        assert sum(tokens[part]["histogram"]) == count
        counted = snapshot.rows.filter(split=part).values_list("token_count", flat=True)
        assert tokens[part]["total"] == sum(counted) > 0
    assert snapshot.statistics["tokenizer"]
    assert AuditEvent.objects.get(action="frozen").detail["sha256"] == snapshot.sha256


def test_turns_of_tools_stand_before_and_behind_the_question(
    dataset: Dataset, alice: User, write: Write
) -> None:
    write(
        "What is the weather?", "It rains.",
        messages=[
            {"role": "instruction", "content": ""},
            {"role": "tool_call", "content": "weather()"},
            {"role": "tool", "content": "rain"},
        ],
    )  # fmt: skip
    messages = json.loads(freeze(dataset, alice).rows.get().line)["messages"]
    assert [(turn["role"], turn["content"]) for turn in messages] == [
        ("user", "What is the weather?"), ("assistant", "weather()"), ("user", "rain"),
        ("assistant", "It rains."),
    ]  # fmt: skip


def test_beyond_a_number_pairs_are_not_compared_by_meaning_and_the_report_says_so(
    dataset: Dataset, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "MOST_VECTORS", 5)
    fill(dataset, 8, 12)
    snapshot = freeze(dataset, alice)
    assert snapshot.state == "ready"
    assert snapshot.leakage["compared_by_meaning"] == 5
    assert sum(snapshot.counts.values()) == 12
    # What is embedded already is looked through for leaks too, and changes no part.
    exam = Dataset.objects.create(
        collection=dataset.collection, name="Exam", purpose=Dataset.Purpose.EVALUATION
    )
    last = dataset.pairs.latest("pk")
    words = last.output.split()
    asked = write_pair(exam, last.instruction, " ".join(reversed(words)))
    duplicates.vectors_of([last.pk])
    again = freeze(dataset, alice)
    assert (again.leakage["compared_by_meaning"], again.sha256) == (6, snapshot.sha256)
    [leak] = again.leakage["evaluation"]
    assert (leak["pairs"], leak["compared_by_meaning"]) == (1, 1)
    assert [last.pk, asked.pk] in [[one, other] for one, _, other, _ in leak["shown"]["meaning"]]
