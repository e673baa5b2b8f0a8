"""What callers may send: each body and query with its fields, and nothing else."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group
from django.utils import timezone
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from kb.api.base import Input
from kb.models import ApiToken, Document, Feedback, Job, Membership, User
from kb.models.documents import MAX_NAME
from kb.search import Filters

MAX_ID = 2**63 - 1
MAX_LIST = 100
MAX_QUERY = 2_000
MAX_SEARCH_LIMIT, MAX_SEARCH_OFFSET = 100, 1_000
TOKEN_DAYS, MAX_TOKEN_DAYS = 90, 366


class IdField(serializers.IntegerField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=1, max_value=MAX_ID, **kwargs)


def several(child: serializers.Field[Any, Any, Any, Any], help_text: str) -> serializers.ListField:
    return serializers.ListField(
        child=child, required=False, max_length=MAX_LIST, help_text=help_text
    )


def word(max_length: int = 100) -> serializers.CharField:
    return serializers.CharField(max_length=max_length)


class TagsField(serializers.ListField):
    """Tags without doubles, in the order given."""

    child = serializers.CharField(max_length=50)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=50, **kwargs)

    def to_internal_value(self, data: Any) -> list[str]:
        return list(dict.fromkeys(super().to_internal_value(data)))


# --- Collections ------------------------------------------------------------------------------


class CollectionInput(Input):
    name = serializers.CharField(max_length=120)
    description = serializers.CharField(required=False, allow_blank=True, max_length=10_000)
    is_public = serializers.BooleanField(
        required=False, help_text="Everyone who can sign in may read it."
    )


class CollectionChange(CollectionInput):
    name = serializers.CharField(max_length=120, required=False)


class CollectionQuery(Input):
    name = serializers.CharField(required=False, max_length=120, help_text="Part of the name.")
    role = several(
        serializers.ChoiceField(choices=Membership.Role.choices), "Where your own role is this."
    )


class RoleInput(Input):
    role = serializers.ChoiceField(choices=Membership.Role.choices)


class MemberInput(RoleInput):
    """A person by username, or a group by name; gives {"user": …} or {"group": …} with the role."""

    username = serializers.CharField(required=False, max_length=150)
    group = serializers.CharField(required=False, max_length=150)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("username" in attrs) == ("group" in attrs):
            raise ValidationError("Name either a username or a group.")
        return attrs

    def validate_username(self, username: str) -> User:
        found = User.objects.filter(username=username, is_active=True).first()
        return found or _missing("There is no person of this name.")

    def validate_group(self, name: str) -> Group:
        return Group.objects.filter(name=name).first() or _missing(
            "There is no group of this name."
        )


def _missing(sentence: str) -> Any:
    raise ValidationError(ErrorDetail(sentence, code="does_not_exist"))


# --- Documents --------------------------------------------------------------------------------


class DocumentQuery(Input):
    ORDERS = [
        sign + name for name in ("updated_at", "created_at", "name", "title") for sign in ("", "-")
    ]

    collection = several(IdField(), "Documents of any of these collections.")
    state = several(serializers.ChoiceField(choices=Document.State.choices), "In any of these.")
    type = several(word(), "Of any of these media types.")
    language = several(word(32), "In any of these languages.")
    tag = several(word(50), "With any of these tags.")
    name = serializers.CharField(
        required=False, max_length=MAX_NAME, help_text="Part of the name or the title."
    )
    updated_since = serializers.DateTimeField(required=False, help_text="At this time or later.")
    updated_until = serializers.DateTimeField(required=False, help_text="At this time or earlier.")
    ordering = serializers.ChoiceField(choices=ORDERS, required=False, default="-updated_at")


class UploadInput(Input):
    collection = IdField()
    file = serializers.FileField(allow_empty_file=True, max_length=1_000)
    name = serializers.CharField(
        required=False, max_length=MAX_NAME, help_text="The file's own name unless told."
    )
    tags = TagsField(required=False, help_text="Repeat the field for several.")


class ReplacementInput(Input):
    file = serializers.FileField(allow_empty_file=True, max_length=1_000)


class DocumentChange(Input):
    title = serializers.CharField(max_length=500, required=False)
    tags = TagsField(required=False)


class PassageQuery(Input):
    page = serializers.IntegerField(
        required=False, min_value=1, max_value=2**31 - 1, help_text="On this page."
    )


class JobQuery(Input):
    state = several(serializers.ChoiceField(choices=Job.State.choices), "In any of these.")
    document = several(IdField(), "On any of these documents.")


class DownloadQuery(Input):
    version = serializers.IntegerField(
        required=False, min_value=1, max_value=2**31 - 1, help_text="The newest unless told."
    )


# --- Search and conversations -----------------------------------------------------------------


class FiltersInput(Input):
    media_types = several(word(), "Of any of these media types.")
    languages = several(word(32), "In any of these languages.")
    tags = several(word(50), "With any of these tags.")
    document_ids = several(IdField(), "In these documents only.")
    since = serializers.DateField(required=False, help_text="Updated on this day or later.")
    until = serializers.DateField(required=False, help_text="Updated on this day or earlier.")


class SearchInput(FiltersInput):
    query = serializers.CharField(max_length=MAX_QUERY)
    collection_ids = several(IdField(), "In these collections only.")
    limit = serializers.IntegerField(
        required=False, default=10, min_value=1, max_value=MAX_SEARCH_LIMIT
    )
    offset = serializers.IntegerField(
        required=False, default=0, min_value=0, max_value=MAX_SEARCH_OFFSET
    )


def filters_of(values: dict[str, Any]) -> Filters:
    """Build the filters of a search out of a checked SearchInput."""
    names = ("collection_ids", "media_types", "languages", "tags", "document_ids")
    return Filters(
        **{name: tuple(values.get(name, ())) for name in names},
        since=values.get("since"),
        until=values.get("until"),
    )


class ConversationQuery(Input):
    search = serializers.CharField(
        required=False, max_length=200, help_text="Part of the title or of a turn."
    )


class ConversationInput(Input):
    title = serializers.CharField(required=False, max_length=200)
    collections = several(IdField(), "Where it looks; all that the person reads when empty.")
    filters = FiltersInput(required=False)


class ThreadQuery(Input):
    leaf = serializers.IntegerField(
        required=False,
        min_value=1,
        max_value=MAX_ID,
        help_text="A turn of the branch to read; the newest branch unless told.",
    )


class QuestionInput(Input):
    text = serializers.CharField(trim_whitespace=False)
    parent = serializers.IntegerField(  # type: ignore[assignment]
        required=False,
        allow_null=True,
        min_value=1,
        max_value=MAX_ID,
        help_text="The answer to go on from: the newest unless told, null for a fresh start.",
    )
    wait = serializers.BooleanField(required=False, help_text="Answer when the answer is finished.")


class EditInput(Input):
    text = serializers.CharField(trim_whitespace=False)
    wait = serializers.BooleanField(required=False, help_text="Answer when the answer is finished.")


class RegenerateInput(Input):
    generator = serializers.ChoiceField(
        choices=list(settings.GENERATORS),
        required=False,
        help_text="The configured one unless told.",
    )
    wait = serializers.BooleanField(required=False, help_text="Answer when the answer is finished.")


class RatingInput(Input):
    value = serializers.ChoiceField(choices=Feedback.Value.choices)
    reason = serializers.CharField(required=False, allow_blank=True, max_length=2_000)
    corrected_answer = serializers.CharField(required=False, allow_blank=True, max_length=20_000)


# --- Tokens -----------------------------------------------------------------------------------


class TokenInput(Input):
    """Context: `maker_expires_at`, when the token that asks expires; None for a session."""

    name = serializers.CharField(max_length=100)
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=ApiToken.Scope.choices),
        allow_empty=False,
        max_length=4,
    )
    expires_at = serializers.DateTimeField(
        required=False,
        help_text=f"In {TOKEN_DAYS} days unless told, in {MAX_TOKEN_DAYS} at the latest.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        now = timezone.now()
        latest = now + timedelta(days=MAX_TOKEN_DAYS)
        if maker_expires_at := self.context["maker_expires_at"]:
            latest = min(latest, maker_expires_at)
        attrs.setdefault("expires_at", min(now + timedelta(days=TOKEN_DAYS), latest))
        if not now < attrs["expires_at"] <= latest:
            sentence = f"This must be a time from now until {latest:%Y-%m-%d %H:%M} UTC."
            raise ValidationError({"expires_at": ErrorDetail(sentence, code="invalid")})
        return attrs
