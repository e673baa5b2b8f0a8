"""From a claimed file to searchable passages."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from django.db import transaction
from django.utils import timezone

from kb import chunking, extraction, languages
from kb.backends import get_backend
from kb.chunking import Passage
from kb.embedders import EmbeddingError
from kb.extraction import DocumentUnreadable
from kb.models import (
    Chunk,
    Document,
    DocumentPage,
    DocumentVersion,
    Embedding,
    EmbeddingSpace,
    Job,
    PendingVector,
    Posting,
)
from kb.models.jobs import EXHAUSTED, LeaseLost
from kb.pages import Extraction, document_text, page_offsets

logger = logging.getLogger(__name__)
# Vectors are saved after each batch: a killed worker repeats at most this many passages.
SAVE_EVERY = 64
BROKEN = (
    "Reading stopped because of a fault in the program; the log has the details."
    " Try again, and report the file if it fails again."
)
NO_TEXT = (
    "There is no text in this file. If it is a scan, run text recognition over it and add it again."
)


@dataclass(frozen=True, slots=True)
class Draft:
    """A version read and cut, before it is published. The sequences have one entry a passage.

    `title_before`: the document's title when the reading began. `texts`: what is embedded and indexed. `hashes`: their SHA-256. `languages`: PostgreSQL's names.
    """

    read: Extraction
    title_before: str
    title: str
    language: str
    passages: Sequence[Passage]
    texts: Sequence[str]
    hashes: Sequence[str]
    languages: Sequence[str]


def ingest(job: Job) -> None:
    """Turn a claimed file into searchable passages.

    An unreadable file is marked FAILED with a sentence for the person who added it. An embedding
    service that is away puts the job back. The work is thrown away when the lease was lost.
    """
    version = DocumentVersion.objects.select_related("document").get(job=job)
    try:
        with job.heartbeat():
            draft = _read(job, version)
            space = EmbeddingSpace.objects.ensure(get_backend("EMBEDDER"))
            vectors, embedded = _embed(job, space, draft.hashes, draft.texts)
            _publish(job, version, draft, space, vectors, embedded)
    except DocumentUnreadable as error:
        _fail(job, version.document, str(error), code=error.code)
    except EmbeddingError as error:
        logger.warning("document %s waits: %s", version.document_id, error)
        job.release(error=str(error))
    except LeaseLost:
        logger.info("job %s was taken over by another worker", job.pk)
    except Exception:
        # The last line of the journey: the row says it in words, the log has the trace.
        _fail(job, version.document, BROKEN, code="broken")
        raise


def _read(job: Job, version: DocumentVersion) -> Draft:
    document = version.document
    job.report("reading", 0, 0)
    Document.objects.filter(pk=document.pk, state=Document.State.QUEUED).update(
        state=Document.State.INGESTING
    )
    read = extraction.extract(Path(version.file.path), document.name)
    # A title that people have seen, or changed, stays: it is part of what is embedded.
    is_given = document.title != PurePath(document.name).stem
    keeps = is_given or document.current_version_id is not None
    title = document.title if keeps else read.title or document.title
    count_tokens = get_backend("EMBEDDER").count_tokens
    passages = chunking.split(read.pages, count_tokens=count_tokens, title=title)
    if not passages:
        raise DocumentUnreadable(NO_TEXT, code="no_text")
    texts = [chunking.embedding_text(title, p.heading_path, p.text) for p in passages]
    language = languages.detect(document_text(read.pages)[:20_000])
    return Draft(
        read=read,
        title_before=document.title,
        title=title[:500],
        language=language,
        passages=passages,
        texts=texts,
        hashes=[chunking.text_hash(text) for text in texts],
        languages=[languages.detect(p.text, default=language) for p in passages],
    )


def _embed(
    job: Job, space: EmbeddingSpace, hashes: Sequence[str], texts: Sequence[str]
) -> tuple[dict[str, np.ndarray], int]:
    """Find or compute the vector of each text hash; the number says how many were computed."""
    vectors = Embedding.objects.known(space, hashes)
    vectors.update(PendingVector.objects.known(job, space))
    by_hash = dict(zip(hashes, texts, strict=True))
    missing = [(h, text) for h, text in by_hash.items() if h not in vectors]
    done, embedder = len(by_hash) - len(missing), get_backend("EMBEDDER")
    job.report("embedding", done, len(by_hash))
    for batch in _batches(missing, SAVE_EVERY):
        computed = embedder.embed_passages([text for _, text in batch])
        rows = [(h, vector) for (h, _), vector in zip(batch, computed, strict=True)]
        PendingVector.objects.copy(job, space, rows)
        vectors.update(rows)
        done += len(rows)
        job.report("embedding", done, len(by_hash))
    return vectors, len(missing)


def _batches(items: list[tuple[str, str]], size: int) -> list[list[tuple[str, str]]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _publish(
    job: Job,
    version: DocumentVersion,
    draft: Draft,
    space: EmbeddingSpace,
    vectors: dict[str, np.ndarray],
    embedded: int,
) -> None:
    """Swap the new version in, in one transaction; readers see the old or the new, never both."""
    job.report("publishing", 0, 0)
    with job.publishing():
        document = Document.objects.select_for_update().get(pk=version.document_id)
        _keep_pages(version, draft, embedded)
        if not _is_superseded(version, document):
            document.chunks.all().delete()
            chunks = _create_chunks(version, document, draft)
            Embedding.objects.copy(space, [(c.pk, vectors[c.text_hash]) for c in chunks])
            Posting.objects.index(chunks, draft.texts)
            _show(version, document, draft)
        PendingVector.objects.filter(job=job).delete()


def _is_superseded(version: DocumentVersion, document: Document) -> bool:
    """Whether a later version was published while this one was read."""
    current = document.current_version
    return current is not None and current.number > version.number


def _keep_pages(version: DocumentVersion, draft: Draft, embedded: int) -> None:
    version.text = document_text(draft.read.pages)
    version.warnings = list(draft.read.warnings)
    version.embedded_count = embedded
    version.published_at = timezone.now()
    version.save(update_fields=["text", "warnings", "embedded_count", "published_at"])
    starts = page_offsets(draft.read.pages)
    DocumentPage.objects.bulk_create(
        DocumentPage(
            version=version,
            number=page.number,
            label=page.label[:200],
            start=start,
            end=start + len(page.text),
            width=page.width,
            height=page.height,
            blocks=[[b.kind, b.start, b.end, b.level] for b in page.blocks],
            lines=[[n.start, n.end, n.x0, n.y0, n.x1, n.y1] for n in page.lines],
        )
        for page, start in zip(draft.read.pages, starts, strict=True)
    )


def _create_chunks(version: DocumentVersion, document: Document, draft: Draft) -> list[Chunk]:
    rows = zip(draft.passages, draft.hashes, draft.languages, strict=True)
    return Chunk.objects.bulk_create(
        [
            Chunk(
                version=version,
                document=document,
                collection_id=document.collection_id,
                position=position,
                start=passage.start,
                end=passage.end,
                page_first=passage.page_first,
                page_last=passage.page_last,
                heading_path=list(passage.heading_path),
                text=passage.text,
                text_hash=text_hash,
                language=language,
                token_count=passage.token_count,
            )
            for position, (passage, text_hash, language) in enumerate(rows)
        ],
        batch_size=1000,
    )


def _show(version: DocumentVersion, document: Document, draft: Draft) -> None:
    is_renamed = document.title != draft.title_before  # by a person, while it was read
    document.current_version = version
    document.title = document.title if is_renamed else draft.title
    document.language = draft.language
    document.media_type = extraction.media_type_of(Path(version.file.path), document.name)
    document.page_count = len(draft.read.pages)
    document.chunk_count = len(draft.passages)
    document.updated_at = timezone.now()
    if document.newest_version.pk == version.pk:
        document.state = Document.State.READY
    document.save()
    if is_renamed:
        document.queue_title()


def _fail(job: Job, document: Document, sentence: str, *, code: str) -> None:
    with transaction.atomic():
        if job.fail(sentence, code=code) and document.newest_version.job_id == job.pk:
            Document.objects.filter(pk=document.pk).update(
                state=Document.State.FAILED, updated_at=timezone.now()
            )


def fail_exhausted() -> int:
    """End jobs whose last allowed worker died, with a sentence; gives their number."""
    jobs = list(Job.objects.exhausted())
    for job in jobs:
        sentence = EXHAUSTED.format(attempts=job.attempts)
        version = DocumentVersion.objects.select_related("document").filter(job=job).first()
        if version is None:
            job.fail(sentence, code="exhausted")
        else:
            _fail(job, version.document, sentence, code="exhausted")
    return len(jobs)


def retitle(job: Job) -> None:
    """Embed and index the passages of a renamed document under its title, as a new version would.

    Until then they are found by the title before. What was renamed again or cut anew meanwhile is
    left alone: it has a job of its own, or needs none.
    """
    with job.settled(broken=BROKEN, away=EmbeddingError):
        with job.heartbeat():
            waiting = Chunk.objects.filter(document__title_job=job).select_related("document")
            chunks = list(waiting.order_by("position"))
            texts = [
                chunking.embedding_text(c.document.title, c.heading_path, c.text) for c in chunks
            ]
            hashes = [chunking.text_hash(text) for text in texts]
            space = EmbeddingSpace.objects.ensure(get_backend("EMBEDDER"))
            vectors, _ = _embed(job, space, hashes, texts)
        with job.publishing():
            if _serve_still(job, chunks):
                _replace(space, chunks, hashes, texts, vectors)
            PendingVector.objects.filter(job=job).delete()


def _serve_still(job: Job, chunks: Sequence[Chunk]) -> bool:
    """Lock the document of the job; False when its title or its passages are others by now."""
    document = Document.objects.select_for_update().filter(title_job=job).first()
    if document is None:
        return False
    ids = document.chunks.order_by("position").values_list("pk", flat=True)
    return list(ids) == [chunk.pk for chunk in chunks]


def _replace(
    space: EmbeddingSpace,
    chunks: Sequence[Chunk],
    hashes: Sequence[str],
    texts: Sequence[str],
    vectors: dict[str, np.ndarray],
) -> None:
    """Give chunks that stay what they are found by now."""
    for chunk, text_hash in zip(chunks, hashes, strict=True):
        chunk.text_hash = text_hash
    Chunk.objects.bulk_update(chunks, ["text_hash"], batch_size=1000)
    ids = [chunk.pk for chunk in chunks]
    Embedding.objects.filter(chunk__in=ids, space=space).delete()
    Embedding.objects.copy(space, [(c.pk, vectors[c.text_hash]) for c in chunks])
    Posting.objects.filter(chunk__in=ids).delete()
    Posting.objects.index(chunks, texts)


def reembed(job: Job) -> None:
    """Embed every passage with the configured model beside the present vectors, then switch.

    Searches go on with the present vectors' words meanwhile (docs/operate.md).
    """
    with job.settled(broken=BROKEN, away=EmbeddingError):
        with job.heartbeat():
            space = EmbeddingSpace.objects.ensure(get_backend("EMBEDDER"))
            _fill(job, space)
        with job.publishing():
            space.switch()


def _fill(job: Job, space: EmbeddingSpace) -> None:
    embedder, total = get_backend("EMBEDDER"), Chunk.objects.count()
    missing = Chunk.objects.exclude(embeddings__space=space).select_related("document")
    while batch := list(missing.order_by("pk")[:SAVE_EVERY]):
        texts = [chunking.embedding_text(c.document.title, c.heading_path, c.text) for c in batch]
        vectors = embedder.embed_passages(texts)
        Embedding.objects.copy(space, [(c.pk, v) for c, v in zip(batch, vectors, strict=True)])
        job.report("embedding", Embedding.objects.filter(space=space).count(), total)
