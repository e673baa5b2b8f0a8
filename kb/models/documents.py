"""Collections of documents, their versions, and the passages cut from them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import PurePath
from typing import TYPE_CHECKING, Self

from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.core.files import File
from django.db import connection, models, transaction
from django.db.models import ProtectedError, Q
from django.utils import timezone

from kb.files import FileTooLarge, IncomingFile, StoredFile, chunks_of, content_storage
from kb.models.accounts import Membership, User
from kb.models.jobs import Job

if TYPE_CHECKING:
    from django_stubs_ext.db.models.manager import RelatedManager

MAX_NAME = 255


class Added(StrEnum):
    """What adding a file did."""

    NEW = "new"
    NEW_VERSION = "new version"
    SAME = "same file"


class UploadRefused(Exception):
    """A file that cannot be taken; the message is a sentence for the person."""


class CollectionInUse(Exception):
    """A collection that cannot go as a whole; the message is a sentence for the person."""


IN_USE = (
    "Models were trained on what was curated in this collection, so it stays, with its people and"
    " data sets. Its documents can be deleted."
)


class CollectionQuerySet(models.QuerySet["Collection"]):
    def readable_by(self, user: User | AnonymousUser) -> Self:
        """Collections the user may read: public ones, and those of their memberships."""
        if not user.is_authenticated:
            return self.none()
        if user.is_superuser:
            return self.all()
        return self.filter(Q(is_public=True) | Q(pk__in=_collection_ids(user)))

    def writable_by(self, user: User | AnonymousUser) -> Self:
        """Collections whose documents the user may add and delete: as curator or owner."""
        return self._with_role(user, [Membership.Role.CURATOR, Membership.Role.OWNER])

    def owned_by(self, user: User | AnonymousUser) -> Self:
        """Collections whose members and settings the user may change."""
        return self._with_role(user, [Membership.Role.OWNER])

    def _with_role(self, user: User | AnonymousUser, roles: list[str]) -> Self:
        if not user.is_authenticated:
            return self.none()
        if user.is_superuser:
            return self.all()
        return self.filter(pk__in=_collection_ids(user, roles))


def _collection_ids(user: User, roles: list[str] | None = None) -> models.QuerySet[Membership]:
    memberships = Membership.objects.filter(Q(user=user) | Q(group__in=user.groups.all()))
    if roles is not None:
        memberships = memberships.filter(role__in=roles)
    return memberships.values("collection_id")  # type: ignore[return-value]


class Collection(models.Model):
    """A named set of documents with its readers, curators and owners."""

    name = models.CharField(max_length=120, unique=True)
    description = models.TextField(blank=True)
    is_public = models.BooleanField(
        default=False, help_text="Everyone who can sign in may read it."
    )
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    objects = CollectionQuerySet.as_manager()

    if TYPE_CHECKING:
        documents: RelatedManager["Document"]
        memberships: RelatedManager[Membership]

    def __str__(self) -> str:
        return self.name

    def grant(self, user: User, role: str) -> Membership:
        """Give a person a role here, replacing the one they had."""
        return self.memberships.update_or_create(user=user, defaults={"role": role})[0]

    def add_document(
        self,
        file: File,
        *,
        name: str,
        added_by: User | None,
        tags: Iterable[str] = (),
    ) -> tuple["Document", Added]:
        """Keep a file and queue its reading; the same name again makes a new version.

        The caller sends the workers a hint after commit. Raises UploadRefused.
        """
        name = _clean_name(name)
        with storing(file) as stored:
            document, created = Document.objects.select_for_update().get_or_create(
                collection=self,
                name=name,
                defaults={"title": PurePath(name).stem, "added_by": added_by, "tags": list(tags)},
            )
            newest = document.versions.order_by("-number").first()
            if (
                newest
                and newest.sha256 == stored.sha256
                and document.state != Document.State.FAILED
            ):
                return document, Added.SAME
            document.add_version(stored, added_by=added_by)
        return document, Added.NEW if created else Added.NEW_VERSION

    def remove(self) -> None:
        """Delete the collection with its documents, passages, vectors and files.

        Raises CollectionInUse, having deleted nothing.
        """
        try:
            with transaction.atomic():
                for document in self.documents.all():
                    document.remove()
                self.delete()
        except ProtectedError:
            raise CollectionInUse(IN_USE) from None


def _clean_name(name: str) -> str:
    cleaned = "".join(c for c in name.replace("\\", "/") if c.isprintable()).strip().strip("/")
    parts = [part for part in cleaned.split("/") if part not in ("", ".", "..")]
    if not parts:
        raise UploadRefused("The file has no name. Give it one and add it again.")
    return "/".join(parts)[-MAX_NAME:]


@contextmanager
def storing(file: File) -> Iterator[StoredFile]:
    """Keep an uploaded file in one transaction with the rows of the body, which name it.

    Raises UploadRefused when it is too large.
    """
    limit = settings.MAX_UPLOAD_BYTES
    try:
        if file.size is not None and file.size > limit:
            raise FileTooLarge
        incoming = content_storage().receive(chunks_of(file), max_bytes=limit)
    except FileTooLarge:
        raise UploadRefused(
            f"The file is larger than {limit // 2**20} MB, the most this install accepts."
            " Split it, or ask an administrator to raise MAX_UPLOAD_MB."
        ) from None
    with transaction.atomic():
        yield settle(incoming)


def settle(incoming: IncomingFile) -> StoredFile:
    """Give a received file its name. Needs a transaction, which commits a row with that name.

    Until its end nobody finds the file unused and deletes it.
    """
    _lock_file(incoming.stored.name)
    return content_storage().settle(incoming)


def _lock_file(name: str) -> None:
    """Wait until nobody else keeps or deletes the file; held until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])


class DocumentQuerySet(models.QuerySet["Document"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """Documents in collections the user may read."""
        return self.filter(collection__in=Collection.objects.readable_by(user))

    def writable_by(self, user: User | AnonymousUser) -> Self:
        """Documents in collections whose documents the user may change."""
        return self.filter(collection__in=Collection.objects.writable_by(user))


class Document(models.Model):
    """A named file of a collection. Its passages are those of `current_version`.

    `state` is the newest version's: while a new version is read, or after it failed, the version
    before it goes on serving.
    """

    class State(models.TextChoices):
        QUEUED = "queued", "Queued"
        INGESTING = "ingesting", "Reading"
        READY = "ready", "Ready"
        FAILED = "failed", "Failed"

    collection = models.ForeignKey(Collection, models.PROTECT, related_name="documents")
    name = models.CharField(max_length=MAX_NAME)
    title = models.CharField(max_length=500)
    media_type = models.CharField(max_length=100, blank=True)
    language = models.CharField(max_length=32, blank=True)
    tags = ArrayField(models.CharField(max_length=50), default=list, blank=True)
    state = models.CharField(max_length=16, choices=State, default=State.QUEUED)
    current_version = models.ForeignKey(
        "kb.DocumentVersion", models.SET_NULL, null=True, blank=True, related_name="+"
    )
    # Brings the present title into what its passages are found by.
    title_job = models.ForeignKey(Job, models.SET_NULL, null=True, blank=True, related_name="+")
    page_count = models.PositiveIntegerField(default=0)
    chunk_count = models.PositiveIntegerField(default=0)
    added_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)

    objects = DocumentQuerySet.as_manager()

    if TYPE_CHECKING:
        versions: RelatedManager["DocumentVersion"]
        chunks: RelatedManager["Chunk"]

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["collection", "name"], name="document_name_once"),
            models.CheckConstraint(
                condition=Q(state__in=["queued", "ingesting", "ready", "failed"]),
                name="document_state_known",
            ),
        ]
        indexes = [
            models.Index(fields=["collection", "-updated_at"], name="document_recent"),
            GinIndex(fields=["tags"], name="document_tags"),
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def newest_version(self) -> "DocumentVersion":
        return self.versions.select_related("job").order_by("-number")[0]

    @property
    def is_final(self) -> bool:
        return self.state in (self.State.READY, self.State.FAILED)

    def add_version(self, stored: StoredFile, *, added_by: User | None) -> "DocumentVersion":
        """Queue a new version; one that still waits is replaced by it. Needs a transaction."""
        newest = self.versions.order_by("-number").first()
        Job.objects.filter(version__document=self, state=Job.State.WAITING).update(
            state=Job.State.CANCELLED, finished_at=timezone.now()
        )
        self.state, self.updated_at = self.State.QUEUED, timezone.now()
        self.save(update_fields=["state", "updated_at"])
        return self.versions.create(
            number=newest.number + 1 if newest else 1,
            file=stored.name,
            sha256=stored.sha256,
            size_bytes=stored.size,
            added_by=added_by,
            job=Job.objects.create(kind=Job.Kind.INGEST),
        )

    def rename(self, title: str) -> None:
        """Change the title, and queue that its passages are found by it.

        The caller sends the workers a hint after commit.
        """
        with transaction.atomic():
            locked = Document.objects.select_for_update().get(pk=self.pk)
            if locked.title != title:
                self.title = locked.title = title
                locked.save(update_fields=["title"])
                locked.queue_title()
                self.title_job = locked.title_job

    def queue_title(self) -> None:
        """Queue that passages cut under another title are found by the present one.

        A job for an earlier title finds out by itself that it is not wanted any more.
        """
        if self.current_version_id:
            self.title_job = Job.objects.create(kind=Job.Kind.RETITLE)
            self.save(update_fields=["title_job"])

    def retry(self) -> bool:
        """Read the newest version again after it failed; False when it has not failed."""
        with transaction.atomic():
            if not self.newest_version.job.retry():
                return False
            self.state = self.State.QUEUED
            self.save(update_fields=["state"])
        return True

    def remove(self) -> None:
        """Delete the document with its versions, passages, vectors, postings, jobs and files."""
        with transaction.atomic():
            versions = list(self.versions.all())
            names = {str(version.file.name) for version in versions}
            jobs = [version.job_id for version in versions]
            jobs += [self.title_job_id] if self.title_job_id else []
            self.delete()
            Job.objects.filter(pk__in=jobs).delete()
            transaction.on_commit(lambda: delete_unused_files(names))


def delete_unused_files(names: Iterable[str]) -> int:
    """Delete the stored files that no row names any more; gives their number."""
    names = set(names)
    return sum(map(_delete_if_unused, sorted(names - _named_files(names))))


def _delete_if_unused(name: str) -> bool:
    """Look again behind the lock: the same content may have been added in this moment."""
    with transaction.atomic():
        _lock_file(name)
        if _named_files({name}):
            return False
        content_storage().delete(name)
    return True


def _named_files(names: set[str]) -> set[str]:
    """Give those that a row of any model names: imports and snapshots keep files here too."""
    fields = (field for model in apps.get_models() for field in model._meta.concrete_fields)
    found: set[str] = set()
    for field in fields:
        if isinstance(field, models.FileField):
            rows = field.model._base_manager.filter(**{f"{field.name}__in": names})
            found |= set(rows.values_list(field.name, flat=True))
    return found


class DocumentVersionQuerySet(models.QuerySet["DocumentVersion"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        return self.filter(document__in=Document.objects.visible_to(user))


class DocumentVersion(models.Model):
    """One upload of a document. `text` is what spans of passages and citations count in."""

    document = models.ForeignKey(Document, models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    file = models.FileField(max_length=200)
    sha256 = models.CharField(max_length=64, db_index=True)
    size_bytes = models.PositiveBigIntegerField()
    text = models.TextField(blank=True)
    warnings = ArrayField(models.TextField(), default=list, blank=True)
    added_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    published_at = models.DateTimeField(null=True, blank=True)
    embedded_count = models.PositiveIntegerField(default=0, help_text="Passages embedded anew.")
    job = models.OneToOneField(Job, models.PROTECT, related_name="version")

    objects = DocumentVersionQuerySet.as_manager()

    if TYPE_CHECKING:
        pages: RelatedManager["DocumentPage"]

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["document", "number"], name="version_number_once"),
        ]

    def __str__(self) -> str:
        return f"{self.document_id} v{self.number}"


class DocumentPage(models.Model):
    """A page of a version as it was read.

    `start`, `end`: [start, end) in the version's text. `blocks`: [kind, start, end, level] and
    `lines`: [start, end, x0, y0, x1, y1], both counted from the page's own start; boxes are in PDF
    points from the top left corner.
    """

    version = models.ForeignKey(DocumentVersion, models.CASCADE, related_name="pages")
    number = models.PositiveIntegerField()
    label = models.CharField(max_length=200, blank=True)
    start = models.PositiveIntegerField()
    end = models.PositiveIntegerField()
    width = models.FloatField(default=0)
    height = models.FloatField(default=0)
    blocks = models.JSONField(default=list)
    lines = models.JSONField(default=list)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["version", "number"], name="page_number_once"),
        ]

    def boxes(self, start: int, end: int) -> list[tuple[float, float, float, float]]:
        """Give the boxes of the lines that [start, end) of the version's text touches."""
        first, last = start - self.start, end - self.start
        return [tuple(line[2:]) for line in self.lines if line[0] < last and first < line[1]]


class ChunkQuerySet(models.QuerySet["Chunk"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """Passages of collections the user may read."""
        return self.filter(collection__in=Collection.objects.readable_by(user))


class Chunk(models.Model):
    """A passage that can be found: a chunk exists exactly while its version serves.

    `start`, `end`: [start, end) in the version's text; `text` equals that stretch, except that a
    part of a long table repeats the table's header. `text_hash`: SHA-256 of what is embedded.
    """

    version = models.ForeignKey(DocumentVersion, models.CASCADE, related_name="chunks")
    # Of the version's document; kept here so that permission and filters need no join.
    document = models.ForeignKey(Document, models.CASCADE, related_name="chunks")
    collection = models.ForeignKey(Collection, models.CASCADE, related_name="+")
    position = models.PositiveIntegerField()
    start = models.PositiveIntegerField()
    end = models.PositiveIntegerField()
    page_first = models.PositiveIntegerField()
    page_last = models.PositiveIntegerField()
    heading_path = ArrayField(models.TextField(), default=list)
    text = models.TextField()
    text_hash = models.CharField(max_length=64, db_index=True)
    language = models.CharField(max_length=32)
    token_count = models.PositiveIntegerField()

    objects = ChunkQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["version", "position"], name="chunk_position_once"),
        ]
        indexes = [models.Index(fields=["language"], name="chunk_language")]

    def __str__(self) -> str:
        return f"{self.document_id} #{self.position}"
