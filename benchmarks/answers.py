"""Measure how often an answer's checks err: "not in the documents", and unsupported sentences.

`script/bench answers [FOLDER] [--save]`: FOLDER holds answers/ and retrieval/xquad_en as
../shared/data does; what is missing there is left out. Every set is cut in two by what belongs
together (conversation, article, passage): thresholds were chosen on the first half of all of them
at once, the second was only measured.

Support: BEGIN's answers to Wizard of Wikipedia, judged attributable to a passage or not; MTRAG's
answers of three models, rated for faithfulness by three people each, and, as a contrast, the
faithful ones held against the passages of another conversation on the same subject.

Not in the documents: MTRAG's turns and XQuAD's questions go through the product's ingestion and
search, once with all documents and once without those that answer; TruthfulQA's have no answer in
MTRAG's documents.
"""

import argparse
import csv
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import beir, installation
from kb import citations
from kb.prompts import Source, Turn, standalone_query

if TYPE_CHECKING:
    from kb.search import Hit

DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"
BEGIN = "answers/begin_wow_dev/begin_dev_wow.tsv"
MTRAG = "answers/mtrag_human_subset/reference_subset_with_human_evaluations.json"
TRUTHFULQA = "answers/truthfulqa/TruthfulQA.csv"
XQUAD = "retrieval/xquad_en"
HALVES = ("chosen on", "held out")
SOURCES = 8  # as many as a chat asks for
DEEP = 60  # so many that eight are left without those of a whole conversation
FAITHFUL, UNFAITHFUL = 3.9, 2.0  # mean of three ratings from 1 to 4
XQUAD_EVERY, TRUTHFULQA_EVERY = 3, 2  # to end within minutes

Json = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """One judgement of the program beside the truth. `half`: one of HALVES."""

    group: str
    half: str
    is_wrong: bool


def half_of(key: str) -> str:
    return HALVES[sha256(key.encode()).digest()[-1] % 2]


# --- Is each sentence supported? --------------------------------------------------------------


def begin(path: Path) -> Iterator[Verdict]:
    """Judge BEGIN: an answer counts as supported when all its sentences do."""
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        _, _, knowledge, _, response, label = line.split("\t")
        judged = citations.check_support(response, [Source(1, "", (), 1, knowledge, 1.0)])
        is_supported = all(sentence.supported for sentence in judged)
        if label.strip() == "Fully attributable":
            group, is_wrong = "BEGIN, supported answer marked", not is_supported
        else:
            group, is_wrong = "BEGIN, unsupported answer not marked", is_supported
        yield Verdict(group, half_of(knowledge), is_wrong)


def faithfulness(mtrag: Json) -> Iterator[Verdict]:
    """Judge MTRAG: people rated answers as a whole, so of a bad one some sentence must be marked."""
    sources = _sources_of(mtrag)
    tasks = {task["task_id"]: task for task in mtrag["tasks"] if task["contexts"]}
    for rated in mtrag["evaluations"]:
        if (task := tasks.get(rated["task_id"])) is None:
            continue
        half, text = half_of(_conversation(task)), rated["model_response"]
        ratings = rated["annotations"]["faithfulness"].values()
        rating = statistics.fmean(int(rating["value"]) for rating in ratings)
        judged = citations.check_support(text, sources[task["task_id"]])
        if rating <= UNFAITHFUL:
            missed = all(sentence.supported for sentence in judged)
            yield Verdict("MTRAG, unfaithful answer without a mark", half, missed)
        if rating < FAITHFUL:
            continue
        for sentence in judged:
            group = "MTRAG, sentence of a faithful answer marked"
            yield Verdict(group, half, not sentence.supported)
        for sentence in citations.check_support(text, sources[_other(task, tasks.values())]):
            group = "MTRAG, sentence on another conversation's passages not marked"
            yield Verdict(group, half, sentence.supported)


def _sources_of(mtrag: Json) -> dict[str, list[Source]]:
    documents = {document["document_id"]: document for document in mtrag["documents"]}
    return {
        task["task_id"]: [
            Source(marker, document.get("title") or "", (), 1, document["text"], 1.0)
            for marker, document in enumerate(
                (documents[context["document_id"]] for context in task["contexts"]), start=1
            )
        ]
        for task in mtrag["tasks"]
    }


def _conversation(task: Json) -> str:
    return str(task["task_id"]).partition("<::>")[0]


def _other(task: Json, tasks: Iterable[Json]) -> str:
    """Choose, always the same, a task on the same subject from another conversation."""
    others = [
        str(other["task_id"])
        for other in tasks
        if other["Collection"] == task["Collection"] and _conversation(other) != _conversation(task)
    ]
    return min(others, key=lambda id_: sha256(f"{task['task_id']}{id_}".encode()).digest())


# --- Do the documents hold an answer? ---------------------------------------------------------


class Library:
    """Documents read into a collection of their own, to search with some of them left out."""

    def __init__(self, name: str, documents: Sequence[tuple[str, str, str]]) -> None:
        from kb.models import Collection, User

        self.user, _ = User.objects.get_or_create(username="bench", is_superuser=True)
        self.collection = Collection.objects.create(name=name, created_by=self.user)
        self.ids = installation.ingest(documents, self.collection, self.user)

    def answers(self, query: str, *without: frozenset[str]) -> list[bool]:
        """Say whether the query is found answerable, for each set of documents left out."""
        from kb import search

        filters = search.Filters(collection_ids=(self.collection.pk,))
        hits = search.search(self.user, query, filters=filters, limit=DEEP)
        return [
            citations.is_answerable(query, list(self._sources(hits, left_out))).answerable
            for left_out in without
        ]

    def _sources(self, hits: "Sequence[Hit]", without: frozenset[str]) -> Iterator[Source]:
        kept = [hit for hit in hits if self.ids[hit.chunk_id] not in without]
        for marker, hit in enumerate(kept[:SOURCES], start=1):
            place = hit.title, hit.heading_path, hit.page_first
            yield Source(marker, *place, hit.text, hit.score, hit.similarity)


NONE: frozenset[str] = frozenset()


def turns(mtrag: Json, library: Library) -> Iterator[Verdict]:
    """Ask MTRAG's turns, once without any document of their conversation."""
    of_conversation: dict[str, set[str]] = {}
    for task in mtrag["tasks"]:
        used = of_conversation.setdefault(_conversation(task), set())
        used.update(context["document_id"] for context in task["contexts"])
    for task in mtrag["tasks"]:
        half, label = half_of(_conversation(task)), task["Answerability"][0]
        query = standalone_query(task["input"][-1]["text"], _history(task))
        own = frozenset(of_conversation[_conversation(task)])
        with_all, without_own = library.answers(query, NONE, own)
        if label == "ANSWERABLE":
            yield Verdict("MTRAG, abstains though answerable", half, not with_all)
            yield Verdict("MTRAG, answers without the passages", half, without_own)
        elif label == "UNANSWERABLE":
            yield Verdict("MTRAG, answers what people found unanswerable", half, with_all)


def _history(task: Json) -> list[Turn]:
    return [
        Turn("user" if turn["speaker"] == "user" else "assistant", turn["text"])
        for turn in task["input"][:-1]
    ]


def questions(test_set: beir.TestSet, library: Library) -> Iterator[Verdict]:
    """Ask XQuAD's questions, once without their paragraph, once without its whole article."""
    article_of = {id_: title for id_, title, _ in test_set.documents}
    articles: dict[str, set[str]] = {}
    for id_, title in article_of.items():
        articles.setdefault(title, set()).add(id_)
    for query_id, query in list(test_set.queries.items())[::XQUAD_EVERY]:
        paragraph = next(id_ for id_, grade in test_set.grades[query_id].items() if grade > 0)
        half = half_of(article_of[paragraph].replace(" ", "_"))
        article = frozenset(articles[article_of[paragraph]])
        found = library.answers(query, NONE, article, frozenset({paragraph}))
        yield Verdict("XQuAD, abstains though answerable", half, not found[0])
        yield Verdict("XQuAD, answers without the article", half, found[1])
        yield Verdict("XQuAD, answers from the article's other paragraphs", half, found[2])


def off_subject(path: Path, library: Library) -> Iterator[Verdict]:
    with path.open(encoding="utf-8") as file:
        asked = [row["Question"] for row in csv.DictReader(file)]
    for question in asked[::TRUTHFULQA_EVERY]:
        (answered,) = library.answers(question, NONE)
        yield Verdict("TruthfulQA, answers from MTRAG's documents", half_of(question), answered)


# --- Together ---------------------------------------------------------------------------------


def support(folder: Path) -> Iterator[Verdict]:
    if (folder / BEGIN).is_file():
        yield from begin(folder / BEGIN)
    if (folder / MTRAG).is_file():
        yield from faithfulness(json.loads((folder / MTRAG).read_text(encoding="utf-8")))


def answerability(folder: Path) -> Iterator[Verdict]:
    if (folder / MTRAG).is_file():
        mtrag = json.loads((folder / MTRAG).read_text(encoding="utf-8"))
        documents = [
            (document["document_id"], document.get("title") or "", document["text"])
            for document in mtrag["documents"]
        ]
        library = Library("MTRAG", documents)
        yield from turns(mtrag, library)
        if (folder / TRUTHFULQA).is_file():
            yield from off_subject(folder / TRUTHFULQA, library)
    if (folder / XQUAD).is_dir():
        test_set = beir.read(folder / XQUAD)
        yield from questions(test_set, Library("XQuAD", test_set.documents))


def rates(verdicts: Iterable[Verdict]) -> dict[str, Mapping[str, float | int]]:
    """Give each group's error rates in percent and its size."""
    groups: dict[str, dict[str, list[bool]]] = {}
    for verdict in verdicts:
        halves = groups.setdefault(verdict.group, {half: [] for half in HALVES})
        halves[verdict.half].append(verdict.is_wrong)
    return {
        group: {
            "judged": sum(map(len, halves.values())),
            **{h: round(100 * statistics.fmean(wrong), 1) for h, wrong in halves.items() if wrong},
        }
        for group, halves in groups.items()
    }


def _print(title: str, table: Mapping[str, Mapping[str, float | int]]) -> None:
    print(f"\n{title + ', wrong in percent':64}{'judged':>8}{HALVES[0]:>11}{HALVES[1]:>10}")
    for group, row in table.items():
        numbers = "".join(f"{row.get(half, '-'):>10}" for half in HALVES)
        print(f"{group:64}{row['judged']:8} {numbers}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/bench answers")
    parser.add_argument("folder", type=Path, nargs="?", default=DEFAULT_FOLDER)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/answers.json")
    arguments = parser.parse_args()
    supported = rates(support(arguments.folder))
    _print(f"Support, threshold {citations.SUPPORT_THRESHOLD}", supported)
    with installation.fresh_install():
        answerable = rates(answerability(arguments.folder))
    _print(f"Not in the documents, threshold {citations.ANSWERABLE_THRESHOLD}", answerable)
    if arguments.save:
        result = {
            "support": {"threshold": citations.SUPPORT_THRESHOLD, "wrong_percent": supported},
            "not_in_the_documents": {
                "threshold": citations.ANSWERABLE_THRESHOLD,
                "wrong_percent": answerable,
            },
        }
        print(f"\nSaved in {installation.save('answers', result)}")


if __name__ == "__main__":
    main()
