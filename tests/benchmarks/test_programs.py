"""Each benchmark runs on a tiny folder and gives numbers that can be checked by hand."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import answers, chunking, handbook, ingest, installation, retrieval, search
from benchmarks.handbook_questions import HandbookQuestion
from kb.chunking import Chunking
from kb.embedders.hashing import HashingEmbedder

DOCUMENTS = {
    "ice": ("Glaciers", "The Morteratsch glacier melts in late August."),
    "bird": ("Birds", "The wheatear nests between stones and leaves in September."),
    "train": ("Railways", "The night train to Chur carries bicycles."),
}
QUESTIONS = {
    "q1": ("When does the Morteratsch glacier melt?", "ice"),
    "q2": ("Where does the wheatear nest between stones?", "bird"),
    "q3": ("Does the night train to Chur carry bicycles?", "train"),
}


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def beir_folder(tmp_path: Path) -> Path:
    folder = tmp_path / answers.XQUAD
    folder.mkdir(parents=True)
    corpus = ({"_id": i, "title": t, "text": x} for i, (t, x) in DOCUMENTS.items())
    write_lines(folder / "corpus.jsonl", corpus)
    queries = ({"_id": i, "text": question} for i, (question, _) in QUESTIONS.items())
    write_lines(folder / "queries.jsonl", queries)
    judgements = "".join(f"{i}\t{document}\t1\n" for i, (_, document) in QUESTIONS.items())
    (folder / "qrels.tsv").write_text(judgements)
    return folder


@pytest.mark.django_db
def test_retrieval_ingests_a_folder_and_ranks_it_in_three_ways(beir_folder: Path) -> None:
    row = retrieval.measure(beir_folder)

    assert (row["documents"], row["passages"], row["queries"]) == (3, 3, 3)
    assert row["fused"] == {"ndcg_10": 1.0, "recall_10": 1.0, "recall_100": 1.0, "mrr": 1.0}
    assert row["text"]["recall_100"] == row["vector"]["recall_100"] == 1.0  # type: ignore[index]


@pytest.mark.django_db
def test_a_title_that_opens_the_text_becomes_its_heading_once(alice: Any) -> None:
    from kb.models import Chunk, Collection

    collection = Collection.objects.create(name="Titles", created_by=alice)
    documents = [("a", "simple shear flow", "simple\nshear flow . It was studied.")]

    ids = installation.ingest(documents, collection, alice)

    (chunk,) = Chunk.objects.filter(collection=collection)
    assert ids == {chunk.pk: "a"}
    assert chunk.heading_path == ["simple shear flow"]
    assert chunk.text == "It was studied."


def write_answers(folder: Path) -> None:
    """Write one supported and one unsupported answer, and two conversations."""
    for name in (answers.BEGIN, answers.MTRAG, answers.TRUTHFULQA):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    ice = DOCUMENTS["ice"][1]
    rows = [
        ("model", "set", "knowledge", "message", "response", "label"),
        (
            "m",
            "wow",
            ice,
            "When?",
            "The Morteratsch glacier melts in August.",
            "Fully attributable",
        ),
        ("m", "wow", ice, "When?", "Penguins drive to Chur by night.", "Not fully attributable"),
    ]
    (folder / answers.BEGIN).write_text("".join("\t".join(row) + "\n" for row in rows))
    documents = [{"document_id": i, "title": t, "text": x} for i, (t, x) in DOCUMENTS.items()]
    tasks = [
        {
            "task_id": f"{i}<::>1",
            "Collection": "alps",
            "Answerability": ["ANSWERABLE"],
            "contexts": [{"document_id": document}],
            "input": [{"speaker": "user", "text": question}],
        }
        for i, (question, document) in QUESTIONS.items()
    ]
    ratings = {str(person): {"value": "4"} for person in range(3)}
    rated = [
        {
            "task_id": f"{i}<::>1",
            "model_response": DOCUMENTS[document][1],
            "annotations": {"faithfulness": ratings},
        }
        for i, (_, document) in QUESTIONS.items()
    ]
    mtrag = {"documents": documents, "tasks": tasks, "evaluations": rated}
    (folder / answers.MTRAG).write_text(json.dumps(mtrag))
    with (folder / answers.TRUTHFULQA).open("w") as file:
        csv.writer(file).writerows([["Question"], ["Do penguins pay income tax?"]])


def wrong(table: dict[str, Any], group: str) -> set[float]:
    return {table[group][half] for half in answers.HALVES if half in table[group]}


def test_answers_counts_marks_against_what_people_judged(tmp_path: Path) -> None:
    write_answers(tmp_path)

    table = answers.rates(answers.support(tmp_path))

    assert wrong(table, "BEGIN, supported answer marked") == {0.0}
    assert wrong(table, "BEGIN, unsupported answer not marked") == {0.0}
    assert wrong(table, "MTRAG, sentence of a faithful answer marked") == {0.0}
    group = "MTRAG, sentence on another conversation's passages not marked"
    assert table[group]["judged"] == 3
    assert wrong(table, group) == {0.0}


@pytest.mark.django_db
def test_answers_asks_with_and_without_the_documents_that_answer(
    tmp_path: Path, beir_folder: Path
) -> None:
    write_answers(tmp_path)

    table = answers.rates(answers.answerability(tmp_path))

    assert table["MTRAG, answers without the passages"]["judged"] == 3
    assert wrong(table, "MTRAG, answers without the passages") == {0.0}
    assert wrong(table, "XQuAD, answers without the article") == {0.0}
    assert wrong(table, "TruthfulQA, answers from MTRAG's documents") == {0.0}


def test_half_of_what_is_judged_is_held_out() -> None:
    halves = [answers.half_of(str(number)) for number in range(1000)]

    assert 450 < halves.count(answers.HALVES[0]) < 550


def test_chunking_finds_an_excerpt_and_counts_its_tokens(tmp_path: Path) -> None:
    text = "Ice melts in late August.\n\nThe train carries bicycles to Chur."
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "alps.md").write_text(text)
    start = text.index("The train")
    references = json.dumps([{"start_index": start, "end_index": len(text)}])
    with (tmp_path / "questions_df.csv").open("w") as file:
        rows = [["question", "references", "corpus_id"]]
        csv.writer(file).writerows([*rows, ["What carries bicycles?", references, "alps"]])
    embedder: Any = HashingEmbedder()
    corpora = chunking.load(tmp_path)
    questions = np.stack([embedder.embed_query(text) for text, _, _ in corpora.questions])

    whole = chunking.measure("whole", chunking.windows(100, 0), corpora, embedder, questions)
    cut = chunking.passages(embedder, Chunking())
    ours = chunking.measure("ours", cut, corpora, embedder, questions)

    tokens = len(chunking.token_spans(text))
    wanted = len(chunking.token_spans(text[start:]))
    assert whole.top.recall == ours.top.recall == 100
    assert whole.top.precision == pytest.approx(100 * wanted / tokens, abs=0.01)


@pytest.mark.django_db
def test_ingest_counts_what_it_read(tmp_path: Path) -> None:
    for name, (title, text) in DOCUMENTS.items():
        (tmp_path / f"{name}.md").write_text(f"# {title}\n\n{text}\n")

    result, texts = ingest.measure(tmp_path, count=2)

    assert (result["documents"], result["failed"], result["passages"]) == (2, {}, 2)
    assert len(texts) == 2
    assert result["tokens_per_s"] > 0  # type: ignore[operator]
    assert result["worker_peak_mb"] > 0  # type: ignore[operator]


@pytest.mark.django_db(transaction=True)
def test_handbook_counts_answers_and_abstentions(tmp_path: Path) -> None:
    for name, (title, text) in DOCUMENTS.items():
        (tmp_path / f"{name}.md").write_text(f"# {title}\n\n{text}\n")
    asked = [
        HandbookQuestion("When does the Morteratsch glacier melt?", "ice.md", ("late August",)),
        HandbookQuestion("Which penguins pay income tax?", "none.md", ("none of them",)),
    ]

    result = handbook.measure(tmp_path, asked)

    assert result["cited_passage_holds_the_answer"] == result["answer_quotes_it"] == 1
    assert result["not_in_the_documents"] == 1
    assert result["missed"] == ["Which penguins pay income tax?"]


def test_a_folder_without_documents_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no file that can be read"):
        ingest.files(tmp_path, 3)


@pytest.mark.django_db(transaction=True)
def test_search_times_each_part_of_a_page(settings: Any) -> None:
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}

    result = search.measure(count=60, asked=5)

    assert set(result["times"]) >= {"query embedding", "page"}  # type: ignore[call-overload]
    page = result["times"]["page"]  # type: ignore[index]
    assert 0 < page["p50_ms"] <= page["p95_ms"]
    assert "nearest" in result["parts_p50_ms"]  # type: ignore[operator]


def test_a_result_is_saved_with_the_machine_it_was_measured_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "RESULTS", tmp_path / "results")

    saved = json.loads(installation.save("tiny", {"speed": 3}).read_text())

    assert saved["speed"] == 3
    assert {"measured_on", "machine", "python"} <= saved.keys()


@pytest.mark.train
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_serving_asks_a_real_server_both_ways_and_gets_the_same_tokens() -> None:
    pytest.importorskip("peft", reason="peft comes with the train extra")
    from benchmarks import serving

    with serving.served(hidden=64, layers=2, threads=1, device="cpu") as client:
        row = serving.measure(client, requests=8, tokens=8, rounds=1)

    assert row["same_tokens"]
    assert 0 < row["ratio_lowest"] == row["ratio"]


@pytest.mark.django_db
def test_saved_questions_measure_the_install_itself(alice: Any, add_document: Any) -> None:
    from finetune import triage
    from kb.models import Chunk

    ice = add_document("ice.md", "# Ice\n\nThe Morteratsch glacier melts in late August.\n")
    add_document("bird.md", "# Birds\n\nThe wheatear nests between stones.\n")
    gone = add_document("gone.md", "# Trains\n\nThe night train carries bicycles.\n")
    for document, question in (
        (ice, "The Morteratsch glacier melts when?"),
        (gone, "Are bikes allowed?"),
    ):
        triage.add_question(question, Chunk.objects.get(document=document), alice)
    # The document moves on; what was saved is found where it stands now, or is counted as lost.
    add_document(
        "ice.md", "# Ice\n\nA new first line.\n\nThe Morteratsch glacier melts in late August.\n"
    )
    add_document("gone.md", "# Trains\n\nThe day bus takes dogs.\n")

    row = retrieval.measure_saved()

    assert (row["queries"], row["lost"], row["missed"]) == (1, 1, [])
    assert row["fused"]["mrr"] == 1.0  # type: ignore[index]
