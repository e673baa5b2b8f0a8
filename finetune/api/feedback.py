"""Rated answers, retrieval questions, knowledge gaps, and runs that draft pairs."""

from typing import Any

from django.db.models import Count, Max, Min, QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.response import Response

from finetune import drafting, gaps, preferences, triage
from finetune.curation import CurationRefused
from finetune.drafts import Style
from finetune.gaps import GapRefused
from finetune.models import (
    Dataset,
    Drafting,
    GapQuestion,
    KnowledgeGap,
    RetrievalQuestion,
    TriageItem,
)
from finetune.triage import TriageRefused
from kb.api.base import ApiView, CallerRequest, Input, find
from kb.api.inputs import IdField, several
from kb.api.problems import Code, Problem
from kb.models import ApiToken, Chunk, Collection, Document, User
from workers import tasks

READ, WRITE = (ApiToken.Scope.READ,), (ApiToken.Scope.WRITE,)
Category, State = TriageItem.Category, TriageItem.State
DECISIONS = [*(choice for choice in Category.choices if choice[0]), ("dismiss", "Nothing to do")]


# --- What comes in -------------------------------------------------------------------------------


class TriageQuery(Input):
    state = several(serializers.ChoiceField(choices=State.choices), "In any of these.")
    signal = several(
        serializers.ChoiceField(choices=TriageItem.Signal.choices), "Rated in any of these ways."
    )
    collection = several(IdField(), "Of any of these collections.")


class SortInput(Input):
    """What went wrong, and what it needs: a passage for not_found, no more for the others."""

    category = serializers.ChoiceField(choices=DECISIONS)
    passage = IdField(required=False, help_text="The right passage, for not_found.")
    pair = serializers.BooleanField(
        required=False, help_text="With not_found: draft a pair with the passage too."
    )
    output = serializers.CharField(
        required=False, allow_blank=True, max_length=20_000, help_text="What it should say."
    )
    dataset = IdField(required=False, help_text="Where the pair goes; “From ratings” unless told.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["category"] == Category.NOT_FOUND and "passage" not in attrs:
            sentence = ErrorDetail("Name the passage that answers it.", code="required")
            raise ValidationError({"passage": [sentence]})
        return attrs


class QuestionQuery(Input):
    collection = several(IdField(), "Of any of these collections.")


class RetrievalQuestionInput(Input):
    question = serializers.CharField(max_length=8_000)
    passage = IdField(help_text="The passage that answers it.")


class GapQuery(Input):
    state = several(serializers.ChoiceField(choices=KnowledgeGap.State.choices), "In any of these.")
    collection = several(IdField(), "Of any of these collections.")


class GapChange(Input):
    title = serializers.CharField(required=False, max_length=500)
    note = serializers.CharField(required=False, allow_blank=True, max_length=4_000)
    assigned_to = serializers.CharField(
        required=False, allow_null=True, max_length=150, help_text="A username, or null."
    )
    is_closed = serializers.BooleanField(required=False)


class MergeInput(Input):
    into = IdField(help_text="The gap that takes the questions.")


class DraftingInput(Input):
    wanted = serializers.IntegerField(
        required=False, default=20, min_value=1, max_value=drafting.MOST_WANTED
    )
    styles = several(
        serializers.ChoiceField(choices=[style.value for style in Style]),
        "All that can be asked here unless told.",
    )
    collections = several(IdField(), "The data set's own unless told.")
    documents = several(IdField(), "Only these.")
    unused_first = serializers.BooleanField(
        required=False, default=True, help_text="Documents without pairs come first."
    )
    distractors = serializers.IntegerField(
        required=False, default=30, min_value=0, max_value=100, help_text="In percent."
    )
    abstentions = serializers.IntegerField(
        required=False, default=10, min_value=0, max_value=100, help_text="In percent."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["distractors"] + attrs["abstentions"] > 100:
            raise ValidationError("Both shares together are more than 100 percent.")
        return attrs


# --- What goes out -------------------------------------------------------------------------------


class TriagePassageSerializer(serializers.Serializer[Any]):
    marker = serializers.IntegerField(read_only=True)
    is_cited = serializers.BooleanField(read_only=True)
    document = serializers.IntegerField(source="document_id", read_only=True, allow_null=True)
    title = serializers.CharField(read_only=True)
    start = serializers.IntegerField(read_only=True)
    end = serializers.IntegerField(read_only=True)
    text = serializers.CharField(source="quote", read_only=True)
    score = serializers.FloatField(read_only=True)


class TriageSerializer(serializers.ModelSerializer[TriageItem]):
    decided_by = serializers.CharField(
        source="decided_by.username", read_only=True, default=None, allow_null=True
    )

    class Meta:
        model = TriageItem
        fields = ["id", "collection", "signal", "guess", "category", "state", "question", "reason",
                  "corrected_answer", "pair", "decided_by", "decided_at", "created_at"]  # fmt: skip
        read_only_fields = fields


class OneTriageSerializer(TriageSerializer):
    answer = serializers.CharField(source="message.text", read_only=True)
    passages = serializers.SerializerMethodField()

    class Meta(TriageSerializer.Meta):
        fields = [*TriageSerializer.Meta.fields, "answer", "passages"]
        read_only_fields = fields

    @extend_schema_field(TriagePassageSerializer(many=True))
    def get_passages(self, item: TriageItem) -> Any:
        offered = triage.passages_of(item, self.context["user"])
        return TriagePassageSerializer(offered, many=True).data


class RetrievalQuestionSerializer(serializers.ModelSerializer[RetrievalQuestion]):
    class Meta:
        model = RetrievalQuestion
        fields = ["id", "question", "collection", "document", "version", "start", "end", "text",
                  "triage", "created_at"]  # fmt: skip
        read_only_fields = fields


class GapSerializer(serializers.ModelSerializer[KnowledgeGap]):
    assigned_to = serializers.CharField(
        source="assigned_to.username", read_only=True, default=None, allow_null=True
    )
    title = serializers.CharField(
        source="name", read_only=True, help_text="Empty where you may read none of its questions."
    )
    asked = serializers.IntegerField(read_only=True, help_text="How often.")
    first_asked_at = serializers.DateTimeField(read_only=True, allow_null=True)
    last_asked_at = serializers.DateTimeField(read_only=True, allow_null=True)

    class Meta:
        model = KnowledgeGap
        fields = ["id", "collection", "title", "state", "note", "assigned_to", "asked",
                  "first_asked_at", "last_asked_at", "created_at", "closed_at"]  # fmt: skip
        read_only_fields = fields


class PersonSerializer(serializers.Serializer[Any]):
    username = serializers.CharField(source="user.username", read_only=True)
    is_curator = serializers.BooleanField(read_only=True)
    documents = serializers.ListField(
        child=serializers.CharField(), read_only=True, help_text="Near ones that they added."
    )


class GapQuestionSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField(read_only=True)
    text = serializers.CharField(read_only=True)
    asked_at = serializers.DateTimeField(source="created_at", read_only=True)


class OneGapSerializer(GapSerializer):
    questions = GapQuestionSerializer(many=True, read_only=True)
    could_answer = PersonSerializer(many=True, read_only=True)
    answered_by = serializers.IntegerField(
        read_only=True,
        allow_null=True,
        help_text="A passage of a later document that seems to answer it; close the gap then.",
    )

    class Meta(GapSerializer.Meta):
        fields = [*GapSerializer.Meta.fields, "questions", "could_answer", "answered_by"]
        read_only_fields = fields


class DraftingSerializer(serializers.ModelSerializer[Drafting]):
    state = serializers.CharField(source="job.state", read_only=True)
    error = serializers.CharField(source="job.error", read_only=True)
    problems = serializers.DictField(
        child=serializers.IntegerField(), read_only=True, help_text="Why drafts were left out."
    )

    class Meta:
        model = Drafting
        fields = ["id", "dataset", "state", "error", "wanted", "written", "problems",
                  "author_label", "created_at"]  # fmt: skip
        read_only_fields = fields


# --- Rated answers -------------------------------------------------------------------------------


class Triage(ApiView):
    scopes = {"GET": READ}
    query_forms = {"GET": TriageQuery}
    paged = True

    @extend_schema(responses=TriageSerializer(many=True))
    def get(self, request: CallerRequest) -> Response:
        """List the rated answers of the collections you curate, newest first."""
        wanted = self.query()
        items = TriageItem.objects.visible_to(request.user).select_related("decided_by")
        for name in ("state", "signal", "collection"):
            if values := wanted.get(name):
                items = items.filter(**{f"{name}__in": values})
        return self.page(items.order_by("-created_at", "-pk"), TriageSerializer)


class OneTriage(ApiView):
    scopes = {"GET": READ}

    @extend_schema(responses=OneTriageSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read a rated answer with the passages it was offered that you may read."""
        return Response(_shown(_item(request.user, pk), request.user))


class SortTriage(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.NOT_NOW, Code.UNAVAILABLE)}

    @extend_schema(request=SortInput, responses=OneTriageSerializer)
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Sort a rated answer by what went wrong, and do what that asks for.

        `not_found` keeps the question with its right passage to measure search by; `wrong_answer`
        drafts a pair, also of an answer rated right; `no_document` lists a knowledge gap.
        """
        item, wanted = _item(request.user, pk), self.body(SortInput)
        try:
            _sort(item, request.user, wanted)
        except (TriageRefused, CurationRefused) as refusal:
            raise Problem(Code.NOT_NOW, str(refusal)) from refusal
        return Response(_shown(_item(request.user, pk), request.user))


class UndoTriage(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.NOT_NOW,)}

    @extend_schema(request=None, responses=OneTriageSerializer)
    def post(self, request: CallerRequest) -> Response:
        """Take back your last decision about a rated answer, and what it made."""
        try:
            item = triage.undo(request.user)
        except TriageRefused as refusal:
            raise Problem(Code.NOT_NOW, str(refusal)) from refusal
        if item is None:
            raise Problem(Code.NOT_NOW, "There is nothing to take back.")
        return Response(_shown(item, request.user))


def _item(user: User, pk: int) -> TriageItem:
    items = TriageItem.objects.visible_to(user)
    return find(items.select_related("message", "collection", "decided_by", "pair"), pk)


def _shown(item: TriageItem, user: User) -> dict[str, Any]:
    data: dict[str, Any] = OneTriageSerializer(item, context={"user": user}).data
    return data


def _sort(item: TriageItem, user: User, wanted: dict[str, Any]) -> None:
    category, output = wanted["category"], wanted.get("output", "")
    if category == Category.NO_DOCUMENT:
        triage.list_gap(item, user)
    elif category == Category.WRONG_ANSWER:
        triage.draft_pair(item, user, _dataset(user, item, wanted), output=output)
    elif category == "dismiss":
        triage.dismiss(item, user)
    elif wanted.get("pair"):
        dataset, chunk = _dataset(user, item, wanted), _passage(user, wanted["passage"])
        triage.save_question_with_pair(item, user, chunk, dataset, output=output)
    else:
        triage.save_question(item, user, _passage(user, wanted["passage"]))


def _dataset(user: User, item: TriageItem, wanted: dict[str, Any]) -> Dataset:
    if "dataset" not in wanted:
        return preferences.dataset_for(item.collection)
    visible = Dataset.objects.visible_to(user).filter(collection=item.collection_id)
    return visible.filter(pk=wanted["dataset"]).first() or _missing(
        "dataset", "There is no data set with this id in the collection."
    )


def _passage(user: User, pk: int) -> Chunk:
    chunks = Chunk.objects.filter(collection__in=Collection.objects.writable_by(user))
    found = chunks.select_related("document", "version").filter(pk=pk).first()
    return found or _missing("passage", "There is no passage with this id that you curate.")


def _missing(field: str, sentence: str) -> Any:
    raise ValidationError({field: [ErrorDetail(sentence, code="does_not_exist")]})


# --- Retrieval questions -------------------------------------------------------------------------


class RetrievalQuestions(ApiView):
    scopes = {"GET": READ, "POST": WRITE}
    query_forms = {"GET": QuestionQuery}
    paged = True

    @extend_schema(responses=RetrievalQuestionSerializer(many=True))
    def get(self, request: CallerRequest) -> Response:
        """List the questions by which search is measured, with their right passages."""
        questions = RetrievalQuestion.objects.visible_to(request.user)
        if collections := self.query().get("collection"):
            questions = questions.filter(collection__in=collections)
        return self.page(questions.order_by("-pk"), RetrievalQuestionSerializer)

    @extend_schema(request=RetrievalQuestionInput, responses={201: RetrievalQuestionSerializer})
    def post(self, request: CallerRequest) -> Response:
        """Add a question with its right passage, in a collection you curate."""
        wanted = self.body(RetrievalQuestionInput)
        chunk = _passage(request.user, wanted["passage"])
        made = triage.add_question(wanted["question"], chunk, request.user)
        return Response(RetrievalQuestionSerializer(made).data, status=201)


class OneRetrievalQuestion(ApiView):
    scopes = {"GET": READ, "DELETE": WRITE}

    @extend_schema(responses=RetrievalQuestionSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read a question with its right passage."""
        found = find(RetrievalQuestion.objects.visible_to(request.user), pk)
        return Response(RetrievalQuestionSerializer(found).data)

    @extend_schema(responses={204: None})
    def delete(self, request: CallerRequest, pk: int) -> Response:
        """Delete a question; search is not measured with it any more."""
        find(RetrievalQuestion.objects.visible_to(request.user), pk).delete()
        return Response(status=204)


# --- Knowledge gaps ------------------------------------------------------------------------------


class Gaps(ApiView):
    scopes = {"GET": READ}
    query_forms = {"GET": GapQuery}
    paged = True

    @extend_schema(responses=GapSerializer(many=True))
    def get(self, request: CallerRequest) -> Response:
        """List what people ask and no document says, asked most often first."""
        wanted = self.query()
        found = _gaps(request.user)
        for name in ("state", "collection"):
            if values := wanted.get(name):
                found = found.filter(**{f"{name}__in": values})
        return self.page(found.order_by("-asked", "pk"), GapSerializer)  # type: ignore[misc]


class OneGap(ApiView):
    scopes = {"GET": READ, "PATCH": WRITE}
    refusals = {"PATCH": (Code.NOT_NOW,)}

    @extend_schema(responses=OneGapSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read a gap: its questions, who could answer, and whether something does by now."""
        return Response(_shown_gap(request.user, pk))

    @extend_schema(request=GapChange, responses=OneGapSerializer)
    def patch(self, request: CallerRequest, pk: int) -> Response:
        """Change a gap: its title, note, who sees to it, whether it is closed."""
        found, wanted = find(_gaps(request.user), pk), self.body(GapChange)
        try:
            _change(found, request.user, wanted)
        except GapRefused as refusal:
            raise Problem(Code.NOT_NOW, str(refusal)) from refusal
        return Response(_shown_gap(request.user, pk))


class MergeGap(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.NOT_NOW,)}

    @extend_schema(request=MergeInput, responses=OneGapSerializer)
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Give the questions of a gap to another one; the gap itself goes."""
        found, wanted = find(_gaps(request.user), pk), self.body(MergeInput)
        # A gap that is not there is refused as the gap itself would be.
        into = KnowledgeGap.objects.visible_to(request.user).filter(pk=wanted["into"]).first()
        try:
            gaps.merge(found, into or found, request.user)
        except GapRefused as refusal:
            raise Problem(Code.NOT_NOW, str(refusal)) from refusal
        return Response(_shown_gap(request.user, wanted["into"]))


class SplitGap(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.NOT_NOW,)}

    @extend_schema(request=None, responses={201: OneGapSerializer})
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Give one question of a gap a gap of its own."""
        visible = GapQuestion.objects.visible_to(request.user)
        question = find(visible.select_related("gap__collection"), pk)
        try:
            made = gaps.split(question, request.user)
        except GapRefused as refusal:
            raise Problem(Code.NOT_NOW, str(refusal)) from refusal
        return Response(_shown_gap(request.user, made.pk), status=201)


def _gaps(user: User) -> QuerySet[KnowledgeGap]:
    visible = KnowledgeGap.objects.visible_to(user).named_for(user)
    return visible.select_related("collection", "assigned_to").annotate(
        asked=Count("questions"),
        first_asked_at=Min("questions__created_at"),
        last_asked_at=Max("questions__created_at"),
    )


def _shown_gap(user: User, pk: int) -> dict[str, Any]:
    found: Any = find(_gaps(user), pk)
    hits = gaps.near_passages(found, user)
    found.could_answer = gaps.who_could_answer(found, hits)
    answer = gaps.answered_by(found, hits)
    found.answered_by = answer.chunk_id if answer else None
    seen = GapQuestion.objects.visible_to(user).filter(gap=found)
    data: dict[str, Any] = OneGapSerializer(found).data
    return data | {"questions": GapQuestionSerializer(seen.order_by("pk"), many=True).data}


def _change(found: KnowledgeGap, user: User, wanted: dict[str, Any]) -> None:
    """Raises GapRefused."""
    person = found.assigned_to
    if "assigned_to" in wanted:
        name = wanted["assigned_to"]
        person = gaps.may_see_to(found).filter(username=name).first() if name else None
        if name and person is None:
            _missing("assigned_to", "Nobody of this name reads the collection.")
    if {"title", "note", "assigned_to"} & set(wanted):
        gaps.change(
            found, user, title=wanted.get("title", found.title),
            note=wanted.get("note", found.note), assigned_to=person,
        )  # fmt: skip
    is_closed = found.state == KnowledgeGap.State.CLOSED
    if wanted.get("is_closed", is_closed) != is_closed:
        (gaps.reopen if is_closed else gaps.close)(found, user)


# --- Drafts --------------------------------------------------------------------------------------


class Draftings(ApiView):
    scopes = {"GET": READ, "POST": WRITE}
    paged = True

    @extend_schema(responses=DraftingSerializer(many=True))
    def get(self, request: CallerRequest, pk: int) -> Response:
        """List the runs that drafted pairs of a data set, newest first."""
        dataset = find(Dataset.objects.visible_to(request.user), pk)
        return self.page(
            dataset.draftings.select_related("job").order_by("-pk"), DraftingSerializer
        )

    @extend_schema(request=DraftingInput, responses={202: DraftingSerializer})
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Draft pairs from passages, in the background; each waits for its review.

        A run that is under way is given back instead of a second one.
        """
        dataset = find(Dataset.objects.visible_to(request.user), pk)
        wanted = self.body(DraftingInput)
        choice = _choice(request.user, wanted)
        run = drafting.start(dataset, request.user, wanted=wanted["wanted"], choice=choice)
        tasks.hint_workers()
        return Response(DraftingSerializer(run).data, status=202)


class OneDrafting(ApiView):
    scopes = {"GET": READ}

    @extend_schema(responses=DraftingSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read how far a run is, and why drafts were left out."""
        return Response(DraftingSerializer(_run(request.user, pk)).data)


class StopDrafting(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.NOT_NOW,)}

    @extend_schema(request=None, responses=DraftingSerializer)
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Stop a run; the pairs it has written stay."""
        if not drafting.stop(_run(request.user, pk)):
            raise Problem(Code.NOT_NOW, "The run has ended already.")
        return Response(DraftingSerializer(_run(request.user, pk)).data)


class ResumeDrafting(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.NOT_NOW,)}

    @extend_schema(request=None, responses={202: DraftingSerializer})
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Let a stopped or failed run go on where it was."""
        if not drafting.go_on(_run(request.user, pk)):
            raise Problem(Code.NOT_NOW, "Only a run that was stopped or failed can go on.")
        tasks.hint_workers()
        return Response(DraftingSerializer(_run(request.user, pk)).data, status=202)


def _run(user: User, pk: int) -> Drafting:
    return find(Drafting.objects.visible_to(user).select_related("job"), pk)


def _choice(user: User, wanted: dict[str, Any]) -> drafting.Choice:
    """Read what to draft from; ids that the person may not read are as good as missing."""
    offered = drafting.offered_styles()
    styles = [Style(style) for style in wanted.get("styles") or [s.value for s in offered]]
    if unknown := [style for style in styles if style not in offered]:
        sentence = f"Without a model server nothing is asked as “{unknown[0].value}”."
        raise ValidationError({"styles": [ErrorDetail(sentence, code="invalid_choice")]})
    collections, documents = wanted.get("collections", []), wanted.get("documents", [])
    readable = Collection.objects.readable_by(user).filter(pk__in=collections)
    if readable.count() < len(set(collections)):
        _missing("collections", "There is no such collection.")
    visible = Document.objects.visible_to(user).filter(pk__in=documents)
    if visible.count() < len(set(documents)):
        _missing("documents", "There is no such document.")
    return drafting.Choice(
        styles=styles,
        collections=collections,
        documents=documents,
        unused_first=wanted["unused_first"],
        distractors=wanted["distractors"],
        abstentions=wanted["abstentions"],
    )
