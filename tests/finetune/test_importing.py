"""A file is looked at, confirmed and brought in: exactly, once, and with every bad row named."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.core.files.base import ContentFile
from django.utils import timezone

from finetune import importing
from finetune.models import (
    AuditEvent,
    ColumnMapping,
    Dataset,
    ImportProblem,
    InstructionPair,
    PairImport,
)
from kb.files import content_storage
from kb.models import Collection, Document, Job, User
from kb.models.documents import UploadRefused
from workers import sweeper, tasks


def add(dataset: Dataset, user: User, content: str | bytes, name: str = "pairs.json") -> PairImport:
    data = content.encode() if isinstance(content, str) else content
    return importing.add_file(dataset, ContentFile(data), name=name, user=user)[0]


def bring_in(dataset: Dataset, user: User, content: str | bytes, name: str = "p") -> PairImport:
    """Add a file, confirm it, and do the work as a worker would."""
    made = add(dataset, user, content, name)
    assert importing.start(made, user)
    assert tasks.work_on_next(Job.Kind.IMPORT)
    made.refresh_from_db()
    return made


def lines(*rows: object) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def row(number: int = 1, **more: object) -> dict[str, object]:
    return {"instruction": f"Question {number}?", "input": "", "output": f"Answer {number}."} | more


def problems(made: PairImport) -> list[tuple[int, str]]:
    return list(made.problems.order_by("row_number").values_list("row_number", "reason"))


def test_rows_become_suggested_pairs_that_remember_their_place(
    dataset: Dataset, alice: User
) -> None:
    made = bring_in(dataset, alice, lines(row(1), row(2, source="wiki")), "alpaca.jsonl")

    assert made.job is not None
    assert made.job.state == Job.State.DONE
    assert (made.row_count, made.imported_count, made.problem_count) == (2, 2, 0)
    first, second = dataset.pairs.order_by("pk")
    assert (first.instruction, first.output) == ("Question 1?", "Answer 1.")
    assert first.state == InstructionPair.State.SUGGESTED
    assert first.origin == InstructionPair.Origin.IMPORT
    assert first.collection == dataset.collection
    assert (second.row_number, second.pair_import) == (2, made)
    assert second.extra == {"source": "wiki"}
    assert second.author_label == "alpaca.jsonl"
    assert first.word_count
    event = AuditEvent.objects.get(action=AuditEvent.Action.IMPORTED)
    assert (event.user, event.subject_id) == (alice, made.pk)


def test_every_bad_row_is_named_by_its_number_with_its_reason(
    dataset: Dataset, alice: User
) -> None:
    content = lines(row(1), row(2, output=""), row(3, instruction=" "), row(4, output=["a"]))
    content += '{"instruction": "Broken\n' + lines(row(6), ["no", "object"], row(8, output="a\0b"))

    made = bring_in(dataset, alice, content)

    assert (made.row_count, made.imported_count, made.problem_count) == (8, 2, 6)
    reasons = dict(problems(made))
    assert reasons[2] == "The output is empty."
    assert reasons[3] == "The instruction is empty."
    assert reasons[4] == "The output is a list, not text."
    assert reasons[5].startswith("The line is not JSON: ")
    assert reasons[7] == "The row is not an object with named fields."
    assert reasons[8] == "The output holds a NUL character, which cannot be stored."
    assert made.problems.get(row_number=2).raw == json.dumps(row(2, output=""))
    assert made.problems.get(row_number=5).raw == '{"instruction": "Broken'


def test_half_a_character_written_as_an_escape_is_named(dataset: Dataset, alice: User) -> None:
    made = bring_in(dataset, alice, json.dumps([row(1), row(2, output="a\ud83d")]))

    assert problems(made) == [(2, "The output holds half a character, which cannot be stored.")]
    assert json.loads(made.problems.get().raw) == row(2, output="a\ud83d")


def test_the_same_file_again_changes_nothing(dataset: Dataset, alice: User) -> None:
    made = bring_in(dataset, alice, lines(row(1), row(2)))

    again, is_new = importing.add_file(
        dataset, ContentFile(lines(row(1), row(2)).encode()), name="other name", user=alice
    )

    assert (again, is_new) == (made, False)
    assert not importing.start(again, alice)
    assert dataset.pairs.count() == 2
    assert Job.objects.filter(kind=Job.Kind.IMPORT).count() == 1


def test_another_data_set_may_have_the_same_file(
    dataset: Dataset, collection: Collection, alice: User
) -> None:
    other = Dataset.objects.create(collection=collection, name="Rivers")
    bring_in(dataset, alice, lines(row()))

    bring_in(other, alice, lines(row()))

    assert other.pairs.count() == dataset.pairs.count() == 1


def test_a_killed_import_goes_on_without_doubles(
    dataset: Dataset, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH_ROWS", 10)
    rows = [row(n, output="" if n % 7 == 0 else f"Answer {n}.") for n in range(1, 101)]
    made = add(dataset, alice, lines(*rows))
    importing.start(made, alice)
    copy, calls = importing._copy, []

    def dies(*arguments: object) -> list[int]:
        calls.append(1)
        written = copy(*arguments)  # type: ignore[arg-type]
        if len(calls) == 4:
            raise SystemExit  # as a killed process: nothing is tidied up, the batch is lost
        return written

    monkeypatch.setattr(importing, "_copy", dies)
    job = Job.objects.claim(Job.Kind.IMPORT)
    assert job is not None
    with pytest.raises(SystemExit):
        importing.import_pairs(job)
    assert 0 < dataset.pairs.count() < 86
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now())

    assert tasks.work_on_next(Job.Kind.IMPORT)

    made.refresh_from_db()
    numbers = list(dataset.pairs.order_by("pk").values_list("row_number", flat=True))
    assert numbers == [n for n in range(1, 101) if n % 7]
    assert (made.row_count, made.imported_count, made.problem_count) == (100, 86, 14)
    assert made.problems.count() == 14


WORKER = """
import django; django.setup()
from finetune import importing
from kb.models import Job
importing.BATCH_ROWS = 20
importing.import_pairs(Job.objects.claim(Job.Kind.IMPORT))
"""


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_is_killed_leaves_whole_batches(dataset: Dataset, alice: User) -> None:
    rows = [row(n, output="" if n % 10 == 0 else f"Answer {n}.") for n in range(1, 20_001)]
    made = add(dataset, alice, lines(*rows))
    importing.start(made, alice)
    name = settings.DATABASES["default"]["NAME"]
    environment = {
        **os.environ,
        "DATABASE_URL": urlsplit(settings.DATABASE_URL)._replace(path=f"/{name}").geturl(),
        "DJANGO_SETTINGS_MODULE": "config.settings",
    }
    worker = subprocess.Popen([sys.executable, "-c", WORKER], env=environment, cwd=settings.ROOT)
    try:
        ends = time.monotonic() + 60
        while dataset.pairs.count() < 200 and time.monotonic() < ends:
            time.sleep(0.05)
    finally:
        worker.kill()
        worker.wait()
    assert 200 <= dataset.pairs.count() < 18_000
    Job.objects.filter(pk=made.job_id).update(lease_until=timezone.now())

    assert tasks.work_on_next(Job.Kind.IMPORT)

    made.refresh_from_db()
    numbers = list(dataset.pairs.order_by("row_number").values_list("row_number", flat=True))
    assert numbers == [n for n in range(1, 20_001) if n % 10]
    assert (made.row_count, made.imported_count, made.problem_count) == (20_000, 18_000, 2_000)


def test_a_worker_that_lost_its_lease_writes_nothing_more(
    dataset: Dataset, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH_ROWS", 2)
    made = add(dataset, alice, lines(*(row(n) for n in range(1, 7))))
    importing.start(made, alice)
    slow = Job.objects.claim(Job.Kind.IMPORT)
    assert slow is not None
    convert, calls = importing._convert, []

    def overtaken(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 2:  # another worker takes over and finishes
            Job.objects.filter(pk=slow.pk).update(lease_until=timezone.now())
            assert tasks.work_on_next(Job.Kind.IMPORT)
        return convert(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(importing, "_convert", overtaken)
    importing.import_pairs(slow)

    numbers = list(dataset.pairs.order_by("row_number").values_list("row_number", flat=True))
    assert numbers == [1, 2, 3, 4, 5, 6]


def test_a_data_set_deleted_meanwhile_ends_the_job_with_a_sentence(
    dataset: Dataset, alice: User
) -> None:
    made = add(dataset, alice, lines(row()))
    importing.start(made, alice)
    dataset.delete()

    assert tasks.work_on_next(Job.Kind.IMPORT)

    job = Job.objects.get(kind=Job.Kind.IMPORT)
    assert (job.state, job.error) == (Job.State.FAILED, "The data set was deleted.")


def test_columns_mapped_by_hand_are_remembered_in_the_collection(
    dataset: Dataset, alice: User
) -> None:
    table = "Frage,Antwort,Note\nWann schmilzt er?,Im August.,1\n"
    made = add(dataset, alice, table, "a.csv")
    assert made.format == PairImport.Format.COLUMNS
    made.mapping = {"instruction": "Frage", "output": "Antwort"}
    importing.start(made, alice)
    assert tasks.work_on_next(Job.Kind.IMPORT)
    assert ColumnMapping.objects.get().collection == dataset.collection

    again = bring_in(dataset, alice, "Frage,Antwort,Note\nWo?,Am Nordpol.,2\n", "b.csv")

    assert again.mapping == {"instruction": "Frage", "output": "Antwort"}
    assert dataset.pairs.get(pair_import=again).output == "Am Nordpol."
    assert dataset.pairs.get(pair_import=again).extra == {"Note": "2"}


def test_a_conversation_in_a_cell_is_read_from_a_table_and_a_text_from_lines(
    dataset: Dataset, alice: User
) -> None:
    prompt = '[{"role": "user", "content": "Where is it cold?"}]'
    quoted = prompt.replace('"', '""')

    bring_in(dataset, alice, f'prompt,completion\n"{quoted}",At the pole.\n', "a.csv")
    bring_in(dataset, alice, lines({"prompt": prompt, "completion": "A question."}), "b.jsonl")

    asked = dataset.pairs.order_by("pk").values_list("instruction", "output")
    assert list(asked) == [("Where is it cold?", "At the pole."), (prompt, "A question.")]


def test_a_preview_shows_first_rows_as_pairs_and_counts_what_is_wrong(
    dataset: Dataset, alice: User
) -> None:
    rows = [row(n, output="" if n in (2, 9) else "x") for n in range(1, 31)]
    made = add(dataset, alice, lines(*rows))
    found = importing.preview(made)

    assert [number for number, _ in found.shown] == [1, 3, 4, 5, 6]
    assert found.problems == [(2, "The output is empty."), (9, "The output is empty.")]
    assert (found.row_count, found.pair_count, found.problem_count) == (30, 28, 2)
    assert found.is_whole
    assert importing.columns_of(made) == ["instruction", "input", "output"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "The file is empty."),
        (b"  \n ", "The file is empty."),
        (b"PK\x03\x04 a workbook", "ZIP archive or an Excel workbook"),
        (b"\x1f\x8b\x08 zipped", "compressed with gzip"),
        (b"\x00\x01\x02\x03" * 100, "No table of pairs was found"),
        (b"Dear all,\n\nthis is a letter, and nothing else.\n", "No table of pairs was found"),
        (b"PAR1 not really PAR1", "The Parquet file is damaged"),
        (b'[{"instruction": "cut', "The JSON breaks off here"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "The file holds no rows."),
        (b"[1, 2, 3]", "The row is not an object"),
    ],
)
def test_a_file_that_holds_no_pairs_is_refused_with_a_sentence(
    dataset: Dataset, alice: User, content: bytes, sentence: str
) -> None:
    with pytest.raises(UploadRefused, match=sentence):
        add(dataset, alice, content)
    assert not PairImport.objects.exists()


def test_a_file_that_breaks_off_gives_the_rows_before_and_says_where(
    dataset: Dataset, alice: User
) -> None:
    whole = json.dumps([row(n) for n in range(1, 51)])

    made = bring_in(dataset, alice, whole[:-30])

    assert made.imported_count == 49
    [(number, reason)] = problems(made)
    assert number == 50
    assert reason.endswith("Nothing after it could be read.")


def test_a_row_without_end_does_not_fill_the_memory(dataset: Dataset, alice: User) -> None:
    long = "x" * (5 * 1024 * 1024)
    made = bring_in(dataset, alice, lines(row(1), row(2, output=long), row(3)))

    assert problems(made) == [(2, "The row is longer than 4 million characters.")]
    assert made.imported_count == 2
    assert len(made.problems.get().raw) < 10_000


def test_long_rows_are_brought_in_a_few_at_a_time(
    dataset: Dataset, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH_CHARS", 1_000)
    sizes, write = [], importing._write

    def written(job: Job, made: PairImport, found: importing._Found, measured: object) -> None:
        sizes.append(len(found.pairs))
        write(job, made, found, measured)  # type: ignore[arg-type]

    monkeypatch.setattr(importing, "_write", written)
    bring_in(dataset, alice, lines(*(row(n, output="x " * 300) for n in range(9))))

    assert sizes == [2, 2, 2, 2, 1]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("shape", ["json", "jsonl", "csv"])
def test_any_common_encoding_is_recognised(
    dataset: Dataset, alice: User, encoding: str, shape: str
) -> None:
    text = "Grüße aus dem Süden – für später 😀"
    content = {
        "json": json.dumps([row(output=text)], ensure_ascii=False),
        "jsonl": lines(row(output=text), row(2)),
        "csv": f"instruction,output\nQuestion?,{text}\nWhy?,Because.\n",
    }[shape]

    bring_in(dataset, alice, content.encode(encoding))

    assert dataset.pairs.order_by("row_number")[0].output == text


def test_a_western_file_is_recognised_even_where_its_first_accent_comes_late(
    dataset: Dataset, alice: User
) -> None:
    rows = "".join(f"How deep is lake {n}?,{'It is deep. ' * 40}\n" for n in range(2_000))
    late = (
        "Où fond le glacier ?,À côté du café – c’est déjà l’été.\n"
        "Quelle est la durée du séjour ?,Elle dépend de la saison et des congés.\n"
        "Où se trouve le lac gelé ?,Au pied du glacier près de l’hôtel abandonné.\n"
    )

    made = bring_in(dataset, alice, f"instruction,output\n{rows}{late}".encode("cp1252"))

    assert made.imported_count == 2_003
    assert dataset.pairs.get(row_number=2_001).output == "À côté du café – c’est déjà l’été."


def test_the_sweeper_keeps_the_files_of_imports(
    dataset: Dataset, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = add(dataset, alice, lines(row(1)))
    dropped = add(dataset, alice, lines(row(2)))
    unused = str(dropped.file.name)
    PairImport.objects.filter(pk=dropped.pk).delete()
    monkeypatch.setattr(sweeper, "ORPHAN_AGE_S", -1)

    sweeper.remove_orphans()

    assert content_storage().exists(str(kept.file.name))
    assert not content_storage().exists(unused)


def test_a_file_that_nobody_confirmed_can_be_discarded(
    dataset: Dataset, alice: User, django_capture_on_commit_callbacks: Callable
) -> None:
    made = add(dataset, alice, lines(row()))
    name = str(made.file.name)

    with django_capture_on_commit_callbacks(execute=True):
        assert importing.discard(made)

    assert not PairImport.objects.exists()
    assert not content_storage().exists(name)
    kept = bring_in(dataset, alice, lines(row()))
    assert not importing.discard(kept)


# --- What a file says of its sources is a claim ---------------------------------------------------


def with_source(document: str, text: str, start: int = 0, **more: object) -> str:
    source = {"marker": 1, "document": document, "start": start, "end": start + len(text)}
    return lines(row(provenance={"sources": [source | {"text": text} | more]}))


def test_a_source_is_linked_when_the_person_may_read_it_and_the_text_is_there(
    dataset: Dataset, alice: User, add_document: Callable[..., Document]
) -> None:
    document = add_document("melt.txt", "The glacier melts in August.")
    made = bring_in(dataset, alice, with_source("melt.txt", "glacier melts", 4))

    source = dataset.pairs.get(pair_import=made).sources.get()
    assert (source.document, source.version) == (document, document.current_version)
    assert (source.collection, source.text) == (dataset.collection, "glacier melts")


@pytest.mark.parametrize(
    "content",
    [
        with_source("secret.txt", "The vault opens at noon."),
        with_source("melt.txt", "The glacier never melts."),
        with_source("melt.txt", "glacier", 3),
        with_source("nowhere.txt", "The glacier"),
        with_source("melt.txt", "The glacier", marker=-1),
        with_source("melt.txt", "The glacier", end=3_000_000_000),
        lines(row(provenance={"sources": "all of them"})),
        lines(row(provenance={"sources": [["melt.txt"]]})),
        lines(row(provenance={"state": "approved", "reviewer": "alice", "collection": 1})),
    ],
)
def test_a_forged_source_stays_text(
    dataset: Dataset, alice: User, bob: User, add_document: Callable[..., Document], content: str
) -> None:
    closed = Collection.objects.create(name="Closed")
    add_document("melt.txt", "The glacier melts in August.")
    add_document("secret.txt", "The vault opens at noon.", to=closed)

    bring_in(dataset, alice, content)

    pair = dataset.pairs.get()
    assert not pair.sources.exists()
    assert pair.state == InstructionPair.State.SUGGESTED
    assert pair.reviewer is None
    assert pair.extra["provenance"] == json.loads(content)["provenance"]


# --- Real files -----------------------------------------------------------------------------------

REAL = {  # name: container, format, rows; counted with other tools
    "gsm8k_alpaca/gsm_8k_train.json": ("json", "alpaca", 7473),
    "llamafactory/alpaca_en_demo.json": ("json", "alpaca", 999),
    "llamafactory/alpaca_zh_demo.json": ("json", "alpaca", 1000),
    "llamafactory/dpo_en_demo.json": ("json", "sharegpt", 300),
    "llamafactory/glaive_toolcall_en_demo.json": ("json", "sharegpt", 300),
    "llamafactory/identity.json": ("json", "alpaca", 91),
    "llamafactory/kto_en_demo.json": ("json", "messages", 300),
    "rasbt/instruction-data-with-preference.json": ("json", "alpaca", 1100),
    "rasbt/instruction-data.json": ("json", "alpaca", 1100),
    "self_instruct/seed_tasks.jsonl": ("jsonl", "alpaca", 175),
}


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_a_real_file_imports_whole(
    dataset: Dataset, alice: User, shared_data: Path, name: str
) -> None:
    container, format_, count = REAL[name]
    content = (shared_data / "instructions" / name).read_bytes()

    made = bring_in(dataset, alice, content, name)

    assert (made.container, made.format) == (container, format_)
    assert (made.row_count, made.imported_count, made.problem_count) == (count, count, 0)
    assert not ImportProblem.objects.exists()
    assert dataset.pairs.count() == count


@pytest.mark.data
def test_every_real_file_is_there(shared_data: Path) -> None:
    folder = shared_data / "instructions"
    found = {path.relative_to(folder).as_posix() for path in folder.glob("*/*.json*")}
    assert found == set(REAL)


@pytest.mark.data
def test_a_real_preference_and_a_real_verdict_keep_both_sides(
    dataset: Dataset, alice: User, shared_data: Path
) -> None:
    folder = shared_data / "instructions" / "llamafactory"
    preferences = json.loads((folder / "dpo_en_demo.json").read_text())
    verdicts = json.loads((folder / "kto_en_demo.json").read_text())

    dpo = bring_in(dataset, alice, json.dumps(preferences))
    kto = bring_in(dataset, alice, json.dumps(verdicts))

    for pair in dataset.pairs.filter(pair_import=dpo):
        raw = preferences[pair.row_number - 1]
        assert (pair.output, pair.rejected) == (raw["chosen"]["value"], raw["rejected"]["value"])
        assert pair.instruction == raw["conversations"][-1]["value"]
    wrong = dataset.pairs.filter(pair_import=kto, output="")
    assert wrong.count() == sum(not verdict["label"] for verdict in verdicts)
    assert all(
        pair.rejected == verdicts[pair.row_number - 1]["messages"][-1]["content"] for pair in wrong
    )
