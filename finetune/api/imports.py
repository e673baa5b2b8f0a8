"""Files of pairs: look at one, bring it in, follow it, read what was left out; and the way out."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.parsers import MultiPartParser
from rest_framework.response import Response

from finetune import exporting, formats, importing
from finetune.models import Dataset, ImportProblem, InstructionPair, PairImport
from kb.api.base import ApiView, CallerRequest, Input, find
from kb.api.inputs import several, word
from kb.api.problems import Code, Problem
from kb.downloads import send
from kb.models import ApiToken, Job, User
from workers import tasks

READ, WRITE = (ApiToken.Scope.READ,), (ApiToken.Scope.WRITE,)
MAX_COLUMN = 1_000
NOT_STARTED = "not_started"


# --- What comes in and goes out ------------------------------------------------------------------


class ImportInput(Input):
    file = serializers.FileField(allow_empty_file=True, max_length=1_000)
    start = serializers.BooleanField(
        required=False, default=True, help_text="False only looks at the file."
    )


class ReadingChange(Input):
    format = serializers.ChoiceField(choices=PairImport.Format.choices, required=False)
    mapping = serializers.DictField(
        child=serializers.CharField(max_length=MAX_COLUMN, allow_blank=True),
        required=False,
        help_text="Which column gives which field, for the format “columns”: {“instruction”: “q”}.",
    )

    def validate_mapping(self, mapping: dict[str, str]) -> dict[str, str]:
        named = {field: column for field, column in mapping.items() if column}
        if unknown := sorted(set(named) - set(formats.FIELDS)):
            sentence = f"There is no field “{unknown[0]}”; there are {', '.join(formats.FIELDS)}."
            raise ValidationError(ErrorDetail(sentence, code="unknown"))
        if len(set(named.values())) < len(named):
            raise ValidationError("A column can give one field only.")
        return named


class ExportQuery(Input):
    kind = serializers.ChoiceField(choices=list(exporting.KINDS), required=False)
    state = several(
        serializers.ChoiceField(choices=InstructionPair.State.choices),
        "In any of these states; approved pairs unless told.",
    )
    tag = several(word(50), "With any of these tags.")
    provenance = serializers.BooleanField(
        required=False, default=True, help_text="Say of every pair where it comes from."
    )


class ImportSerializer(serializers.ModelSerializer[PairImport]):
    state = serializers.SerializerMethodField(
        help_text="not_started while it is only looked at, then the state of its job."
    )
    percent = serializers.IntegerField(source="job.percent", default=0, read_only=True)
    error = serializers.CharField(source="job.error", default="", read_only=True)
    mapping = serializers.DictField(child=serializers.CharField(), read_only=True)
    created_by = serializers.CharField(
        source="created_by.username", read_only=True, default=None, allow_null=True
    )

    class Meta:
        model = PairImport
        fields = [
            "id",
            "dataset",
            "name",
            "container",
            "format",
            "mapping",
            "size_bytes",
            "sha256",
            "state",
            "percent",
            "error",
            "row_count",
            "imported_count",
            "problem_count",
            "created_by",
            "created_at",
        ]
        read_only_fields = fields

    def get_state(self, pair_import: PairImport) -> str:
        return pair_import.job.state if pair_import.job else NOT_STARTED


class AddedImportSerializer(serializers.Serializer[Any]):
    outcome = serializers.ChoiceField(choices=["new", "same file"], read_only=True)
    pair_import = ImportSerializer(read_only=True)


class ProblemRowSerializer(serializers.ModelSerializer[ImportProblem]):
    row = serializers.IntegerField(source="row_number", read_only=True, help_text="From 1.")

    class Meta:
        model = ImportProblem
        fields = ["row", "reason", "raw"]
        read_only_fields = fields


class SeenProblemSerializer(serializers.Serializer[Any]):
    row = serializers.IntegerField(read_only=True)
    reason = serializers.CharField(read_only=True)


class SeenPairSerializer(serializers.Serializer[Any]):
    row = serializers.IntegerField(read_only=True)
    system = serializers.CharField(read_only=True)
    messages = serializers.ListField(
        child=serializers.DictField(child=serializers.CharField()), read_only=True
    )
    instruction = serializers.CharField(read_only=True)
    input = serializers.CharField(read_only=True)
    output = serializers.CharField(read_only=True)
    rejected = serializers.CharField(read_only=True)
    tags = serializers.ListField(child=serializers.CharField(), read_only=True)
    kept = serializers.ListField(
        child=serializers.CharField(), read_only=True, help_text="Further columns."
    )


class PreviewSerializer(serializers.Serializer[Any]):
    columns = serializers.ListField(child=serializers.CharField(), read_only=True)
    row_count = serializers.IntegerField(read_only=True, help_text="Rows looked at.")
    is_whole = serializers.BooleanField(read_only=True, help_text="The file has no more rows.")
    pair_count = serializers.IntegerField(read_only=True)
    problem_count = serializers.IntegerField(read_only=True)
    problems = SeenProblemSerializer(many=True, read_only=True)
    pairs = SeenPairSerializer(many=True, read_only=True)
    error = serializers.CharField(read_only=True)


# --- Endpoints -----------------------------------------------------------------------------------


class Imports(ApiView):
    scopes = {"GET": READ, "POST": WRITE}
    limits = {"POST": "upload"}
    refusals = {"POST": (Code.UPLOAD_REFUSED,)}
    parser_classes = [MultiPartParser]
    paged = True

    @extend_schema(responses=ImportSerializer(many=True))
    def get(self, request: CallerRequest, pk: int) -> Response:
        """List the files of a data set, newest first."""
        dataset = _dataset(request.user, pk)
        return self.page(
            _imports(request.user).filter(dataset=dataset).order_by("-pk"), ImportSerializer
        )

    @extend_schema(
        request=ImportInput, responses={201: AddedImportSerializer, 200: AddedImportSerializer}
    )
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Bring a file of pairs in.

        JSON, JSON lines, CSV or Parquet; the format is seen from the content. The rows come in in
        the background: follow `state` and `percent`. The same file again changes nothing (200,
        `same file`). With `start` false the file is only kept: see its preview, change how it is
        read, then start it.
        """
        dataset, wanted = _dataset(request.user, pk), self.body(ImportInput)
        made, is_new = importing.add_file(
            dataset, wanted["file"], name=wanted["file"].name, user=request.user
        )
        if is_new and wanted["start"]:
            _start(made, request.user)
        shown = {
            "outcome": "new" if is_new else "same file",
            "pair_import": _import(request.user, made.pk),
        }
        return Response(AddedImportSerializer(shown).data, status=201 if is_new else 200)


class OneImport(ApiView):
    scopes = {"GET": READ, "PATCH": WRITE, "DELETE": WRITE}
    refusals = {"PATCH": (Code.ALREADY_STARTED,), "DELETE": (Code.ALREADY_STARTED,)}

    @extend_schema(responses=ImportSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read how far a file is."""
        return Response(ImportSerializer(_import(request.user, pk)).data)

    @extend_schema(request=ReadingChange, responses=ImportSerializer)
    def patch(self, request: CallerRequest, pk: int) -> Response:
        """Change how a file is read that was not started yet."""
        found, wanted = _waiting(request.user, pk), self.body(ReadingChange)
        found.format = wanted.get("format", found.format)
        found.mapping = wanted.get("mapping", found.mapping)
        found.save(update_fields=["format", "mapping"])
        return Response(ImportSerializer(found).data)

    @extend_schema(responses={204: None})
    def delete(self, request: CallerRequest, pk: int) -> Response:
        """Discard a file that was not started."""
        importing.discard(_waiting(request.user, pk))
        return Response(status=204)


class ImportPreview(ApiView):
    scopes = {"GET": READ}

    @extend_schema(responses=PreviewSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """See the first rows of a file as they become pairs, and what is wrong with others."""
        found = _import(request.user, pk)
        seen = importing.preview(found)
        shown = {
            "columns": importing.columns_of(found),
            "row_count": seen.row_count,
            "is_whole": seen.is_whole,
            "pair_count": seen.pair_count,
            "problem_count": seen.problem_count,
            "problems": [{"row": row, "reason": reason} for row, reason in seen.problems],
            "pairs": [_seen(row, pair) for row, pairs in seen.shown for pair in pairs],
            "error": seen.error,
        }
        return Response(PreviewSerializer(shown).data)


class ImportStart(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.ALREADY_STARTED,)}

    @extend_schema(request=None, responses={202: ImportSerializer})
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Bring a file in that was looked at, or go on with one that failed."""
        found = _import(request.user, pk)
        if found.job and found.job.state == Job.State.FAILED:
            found.job.retry()
            tasks.hint_workers()
        elif found.job or not _start(found, request.user):
            raise Problem(Code.ALREADY_STARTED)
        return Response(ImportSerializer(_import(request.user, pk)).data, status=202)


class ImportProblems(ApiView):
    scopes = {"GET": READ}
    paged = True

    @extend_schema(responses=ProblemRowSerializer(many=True))
    def get(self, request: CallerRequest, pk: int) -> Response:
        """List the rows that were left out, with number, reason and the row as it stands."""
        found = _import(request.user, pk)
        return self.page(found.problems.order_by("row_number"), ProblemRowSerializer)


class Export(ApiView):
    scopes = {"GET": READ}
    query_forms = {"GET": ExportQuery}

    @extend_schema(responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    def get(self, request: CallerRequest, pk: int) -> HttpResponseBase:
        """Download the pairs of a data set that you may see, in one of the usual formats."""
        dataset, wanted = _dataset(request.user, pk), self.query()
        kind = wanted.get("kind", "alpaca_jsonl")
        pieces = exporting.export(
            request.user,
            dataset,
            kind,
            states=wanted.get("state") or [InstructionPair.State.APPROVED],
            tags=wanted.get("tag", ()),
            with_provenance=wanted["provenance"],
        )
        name = exporting.file_name(dataset, kind)
        return send(request._request, pieces, name, "application/octet-stream")


def _dataset(user: User, pk: int) -> Dataset:
    return find(Dataset.objects.visible_to(user), pk)


def _imports(user: User) -> QuerySet[PairImport]:
    found = PairImport.objects.visible_to(user)
    return found.select_related("dataset__collection", "job", "created_by")


def _import(user: User, pk: int) -> PairImport:
    return find(_imports(user), pk)


def _waiting(user: User, pk: int) -> PairImport:
    found = _import(user, pk)
    if found.job is not None:
        raise Problem(Code.ALREADY_STARTED)
    return found


def _start(pair_import: PairImport, user: User) -> bool:
    started = importing.start(pair_import, user)
    tasks.hint_workers()
    return started


def _seen(row: int, pair: formats.Pair) -> dict[str, Any]:
    names = ("system", "messages", "instruction", "input", "output", "rejected", "tags")
    return {"row": row, **{name: getattr(pair, name) for name in names}, "kept": list(pair.extra)}
