"""Documents: add, follow, read, replace, delete; their versions, passages and jobs."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.parsers import MultiPartParser
from rest_framework.response import Response

from kb.api.base import ApiView, CallerRequest, find
from kb.api.inputs import (
    DocumentChange,
    DocumentQuery,
    DownloadQuery,
    JobQuery,
    PassageQuery,
    ReplacementInput,
    UploadInput,
)
from kb.api.problems import Code, Problem
from kb.api.serializers import (
    DocumentSerializer,
    JobSerializer,
    PassageSerializer,
    UploadSerializer,
    VersionSerializer,
)
from kb.downloads import download
from kb.models import ApiToken, Chunk, Collection, Document, DocumentVersion, Job, User
from kb.models.documents import Added
from workers import tasks

READ, WRITE = (ApiToken.Scope.READ,), (ApiToken.Scope.WRITE,)
# A token that may only add documents still has to follow what becomes of them.
READ_OR_WRITE = READ + WRITE


class Documents(ApiView):
    scopes = {"GET": READ, "POST": WRITE}
    limits = {"POST": "upload"}
    query_forms = {"GET": DocumentQuery}
    refusals = {"POST": (Code.UPLOAD_REFUSED, Code.TOO_LARGE, Code.NOT_FOUND)}
    parser_classes = [MultiPartParser]
    paged = True

    @extend_schema(responses=DocumentSerializer(many=True))
    def get(self, request: CallerRequest) -> Response:
        """List the documents you may read."""
        documents = _described(Document.objects.visible_to(request.user))
        return self.page(_matching(documents, self.query()), DocumentSerializer)

    @extend_schema(request=UploadInput, responses={201: UploadSerializer, 200: UploadSerializer})
    def post(self, request: CallerRequest) -> Response:
        """Add a file to a collection.

        The answer comes at once; the document is read in the background: follow its `state` and
        `percent`. The same name again makes a new version (201, `new version`). The same name with
        the same content changes nothing (200, `same file`), so a request that got no answer can
        be sent again; an Idempotency-Key header is welcome and not needed.
        """
        wanted = self.body(UploadInput)
        collections = Collection.objects
        readable = collections.readable_by(request.user)
        collection = find(
            readable, wanted["collection"], within=collections.writable_by(request.user)
        )
        name = wanted.get("name") or wanted["file"].name
        return _add(request.user, collection, wanted["file"], name, wanted.get("tags", ()))


class OneDocument(ApiView):
    scopes = {"GET": READ, "PATCH": WRITE, "DELETE": WRITE}

    @extend_schema(responses=DocumentSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read a document's state and properties."""
        return Response(_shown(request.user, pk))

    @extend_schema(request=DocumentChange, responses=DocumentSerializer)
    def patch(self, request: CallerRequest, pk: int) -> Response:
        """Change a document's title or tags."""
        document, wanted = _writable(request.user, pk), self.body(DocumentChange)
        if "title" in wanted:
            document.rename(wanted.pop("title"))
            tasks.hint_workers()
        if wanted:
            Document.objects.filter(pk=document.pk).update(**wanted)
        return Response(_shown(request.user, pk))

    @extend_schema(responses={204: None})
    def delete(self, request: CallerRequest, pk: int) -> Response:
        """Delete a document with its versions, passages and files."""
        _writable(request.user, pk).remove()
        return Response(status=204)


class Download(ApiView):
    scopes = {"GET": READ}
    query_forms = {"GET": DownloadQuery}

    @extend_schema(responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    def get(self, request: CallerRequest, pk: int) -> HttpResponseBase:
        """Download a document's file as it was added, the newest version unless told."""
        versions = _versions(request.user, pk)
        if number := self.query().get("version"):
            versions = versions.filter(number=number)
        version = versions.first()
        if version is None:
            raise Problem(Code.NOT_FOUND)
        return download(request._request, version, PurePosixPath(version.document.name).name)


class Retry(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.NOT_FAILED,)}

    @extend_schema(request=None, responses={202: DocumentSerializer})
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Read a document again whose newest version failed."""
        if not _writable(request.user, pk).retry():
            raise Problem(Code.NOT_FAILED)
        tasks.hint_workers()
        return Response(_shown(request.user, pk), status=202)


class Versions(ApiView):
    scopes = {"GET": READ, "POST": WRITE}
    limits = {"POST": "upload"}
    refusals = {"POST": (Code.UPLOAD_REFUSED, Code.TOO_LARGE)}
    parser_classes = [MultiPartParser]
    paged = True

    @extend_schema(responses=VersionSerializer(many=True))
    def get(self, request: CallerRequest, pk: int) -> Response:
        """List a document's versions, newest first."""
        return self.page(_versions(request.user, pk), VersionSerializer)

    @extend_schema(
        request=ReplacementInput, responses={201: UploadSerializer, 200: UploadSerializer}
    )
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Replace a document's file; the version before it serves until the new one is ready."""
        document = _writable(request.user, pk)
        file = self.body(ReplacementInput)["file"]
        return _add(request.user, document.collection, file, document.name)


class Passages(ApiView):
    scopes = {"GET": READ}
    query_forms = {"GET": PassageQuery}
    paged = True

    @extend_schema(responses=PassageSerializer(many=True))
    def get(self, request: CallerRequest, pk: int) -> Response:
        """List the passages of the version that serves, in their order."""
        find(Document.objects.visible_to(request.user), pk)
        passages = _passages(request.user).filter(document=pk)
        if page := self.query().get("page"):
            passages = passages.filter(page_first__lte=page, page_last__gte=page)
        return self.page(passages.order_by("position"), PassageSerializer)


class Passage(ApiView):
    scopes = {"GET": READ}

    @extend_schema(responses=PassageSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read a passage; one of a version that was replaced is gone."""
        return Response(PassageSerializer(find(_passages(request.user), pk)).data)


class Jobs(ApiView):
    scopes = {"GET": READ_OR_WRITE}
    query_forms = {"GET": JobQuery}
    paged = True

    @extend_schema(responses=JobSerializer(many=True))
    def get(self, request: CallerRequest) -> Response:
        """List the background work on documents you may read, newest first."""
        wanted, jobs = self.query(), _jobs(request.user)
        if states := wanted.get("state"):
            jobs = jobs.filter(state__in=states)
        if documents := wanted.get("document"):
            jobs = jobs.filter(version__document__in=documents)
        return self.page(jobs.order_by("-pk"), JobSerializer)


class OneJob(ApiView):
    scopes = {"GET": READ_OR_WRITE}

    @extend_schema(responses=JobSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read one piece of background work."""
        return Response(JobSerializer(find(_jobs(request.user), pk)).data)


def _described(documents: QuerySet[Document]) -> QuerySet[Document]:
    """Fetch the newest version and its job along; texts of versions stay where they are."""
    newest = (
        DocumentVersion.objects.defer("text")
        .select_related("job")
        .order_by("document_id", "-number")
        .distinct("document_id")
    )
    return (
        documents.select_related("collection", "added_by", "current_version")
        .defer("current_version__text")
        .prefetch_related(Prefetch("versions", newest, to_attr="newest"))
    )


def _matching(documents: QuerySet[Document], wanted: dict[str, Any]) -> QuerySet[Document]:
    """Narrow the documents as a DocumentQuery says, and order them."""
    lookups = {
        "collection": "collection__in",
        "state": "state__in",
        "type": "media_type__in",
        "language": "language__in",
        "tag": "tags__overlap",
        "updated_since": "updated_at__gte",
        "updated_until": "updated_at__lte",
    }
    filters = {lookup: wanted[name] for name, lookup in lookups.items() if wanted.get(name)}
    if name := wanted.get("name"):
        documents = documents.filter(Q(name__icontains=name) | Q(title__icontains=name))
    return documents.filter(**filters).order_by(wanted["ordering"], "pk")


def _shown(user: User, pk: int) -> dict[str, Any]:
    document = find(_described(Document.objects.visible_to(user)), pk)
    data: dict[str, Any] = DocumentSerializer(document).data
    return data


def _writable(user: User, pk: int) -> Document:
    return find(Document.objects.visible_to(user), pk, within=Document.objects.writable_by(user))


def _versions(user: User, document_pk: int) -> QuerySet[DocumentVersion]:
    document = find(Document.objects.visible_to(user), document_pk)
    versions = document.versions.defer("text").select_related("job", "added_by", "document")
    return versions.order_by("-number")


def _passages(user: User) -> QuerySet[Chunk]:
    return Chunk.objects.visible_to(user).select_related("version").defer("version__text")


def _jobs(user: User) -> QuerySet[Job]:
    seen = DocumentVersion.objects.visible_to(user)
    return Job.objects.filter(version__in=seen).select_related("version").defer("version__text")


def _add(
    user: User, collection: Collection, file: UploadedFile, name: str, tags: Iterable[str] = ()
) -> Response:
    if file.size is not None and file.size > settings.MAX_UPLOAD_BYTES:
        limit = settings.MAX_UPLOAD_BYTES // 2**20
        raise Problem(Code.TOO_LARGE, f"The file is larger than {limit} MB, the most taken here.")
    document, outcome = collection.add_document(file, name=name, added_by=user, tags=tags)
    tasks.hint_workers()
    body = {"outcome": outcome.value, "document": _shown(user, document.pk)}
    return Response(body, status=200 if outcome == Added.SAME else 201)
