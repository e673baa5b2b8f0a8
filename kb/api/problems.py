"""Every refusal in one shape: application/problem+json with a stable code (RFC 9457).

docs/api.md lists the codes; a code keeps its meaning for ever.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from django.core import exceptions as django
from django.core.signals import got_request_exception
from django.db import OperationalError
from django.http import Http404, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from rest_framework import exceptions as rest
from rest_framework.response import Response

from kb.chat import QuestionRefused
from kb.embedders import EmbeddingError
from kb.members import MembershipRefused
from kb.models.documents import UploadRefused

logger = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"


class Code(StrEnum):
    """What went wrong, for programs."""

    MALFORMED = "malformed"
    INVALID = "invalid"
    UPLOAD_REFUSED = "upload_refused"
    QUESTION_REFUSED = "question_refused"
    NOT_AUTHENTICATED = "not_authenticated"
    INVALID_TOKEN = "invalid_token"
    PERMISSION_DENIED = "permission_denied"
    MISSING_SCOPE = "missing_scope"
    CSRF_FAILED = "csrf_failed"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    LAST_OWNER = "last_owner"
    NOT_FAILED = "not_failed"
    ALREADY_STARTED = "already_started"
    ALREADY_DECIDED = "already_decided"
    PAIR_REFUSED = "pair_refused"
    NOT_NOW = "not_now"
    NOT_A_QUESTION = "not_a_question"
    NOT_AN_ANSWER = "not_an_answer"
    ANSWER_UNFINISHED = "answer_unfinished"
    TOO_LARGE = "too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    UNAVAILABLE = "unavailable"


# What each code answers with, and the sentence where the place that refuses has no better one.
ANSWERS: dict[Code, tuple[int, str]] = {
    Code.MALFORMED: (400, "The request cannot be read."),
    Code.INVALID: (400, "The request has fields that are not right; “errors” names them."),
    Code.UPLOAD_REFUSED: (400, "The file cannot be taken."),
    Code.QUESTION_REFUSED: (400, "The question cannot be taken."),
    Code.NOT_AUTHENTICATED: (401, "Send a token: “Authorization: Bearer tacit_…”."),
    Code.INVALID_TOKEN: (401, "The token is unknown, expired or revoked."),
    Code.PERMISSION_DENIED: (403, "You may see this, but not do that."),
    Code.MISSING_SCOPE: (403, "The token has not the scope for this."),
    Code.CSRF_FAILED: (403, "The CSRF token is missing or wrong."),
    Code.NOT_FOUND: (404, "There is nothing here that you may see."),
    Code.METHOD_NOT_ALLOWED: (405, "This address does not know that method."),
    Code.LAST_OWNER: (409, "A collection needs an owner. Make somebody else one first."),
    Code.NOT_FAILED: (409, "Only a document that failed can be tried again."),
    Code.ALREADY_STARTED: (409, "The import was started before; nothing was changed."),
    Code.PAIR_REFUSED: (409, "This cannot be done with the pair now."),
    Code.ALREADY_DECIDED: (409, "This was decided before; nothing was changed."),
    Code.NOT_NOW: (409, "This cannot be done now."),
    Code.NOT_A_QUESTION: (409, "Only a question can be edited, and this is an answer."),
    Code.NOT_AN_ANSWER: (409, "This works on answers, and this is a question."),
    Code.ANSWER_UNFINISHED: (409, "The answer is still being written. Wait for it or stop it."),
    Code.TOO_LARGE: (413, "The request is larger than this install accepts."),
    Code.UNSUPPORTED_MEDIA_TYPE: (415, "This address does not read that content type."),
    Code.RATE_LIMITED: (429, "Too many requests. Wait a minute and go on more slowly."),
    Code.SERVER_ERROR: (500, "Something broke here. The log of the server has the details."),
    Code.UNAVAILABLE: (503, "A part of the server is away. Please try again in a moment."),
}
RETRY_AFTER_S = {Code.UNAVAILABLE: 5, Code.RATE_LIMITED: 60}
_MALFORMED = (
    rest.ParseError,
    MultiPartParserError,
    UnreadablePostError,
    django.BadRequest,
    django.TooManyFieldsSent,
    django.TooManyFilesSent,
)
_CODES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], Code], ...] = (
    (_MALFORMED, Code.MALFORMED),
    (django.RequestDataTooBig, Code.TOO_LARGE),
    (rest.ValidationError, Code.INVALID),
    (UploadRefused, Code.UPLOAD_REFUSED),
    (MembershipRefused, Code.LAST_OWNER),
    (QuestionRefused, Code.QUESTION_REFUSED),
    (rest.NotAuthenticated, Code.NOT_AUTHENTICATED),
    (rest.AuthenticationFailed, Code.INVALID_TOKEN),
    ((rest.PermissionDenied, django.PermissionDenied), Code.PERMISSION_DENIED),
    ((Http404, rest.NotFound), Code.NOT_FOUND),
    (rest.MethodNotAllowed, Code.METHOD_NOT_ALLOWED),
    (rest.UnsupportedMediaType, Code.UNSUPPORTED_MEDIA_TYPE),
    (rest.Throttled, Code.RATE_LIMITED),
    ((EmbeddingError, OperationalError), Code.UNAVAILABLE),
)
# Their messages are sentences for the person who asked.
_SPEAKING = (
    UploadRefused,
    MembershipRefused,
    QuestionRefused,
    EmbeddingError,
    rest.MethodNotAllowed,
)


class Problem(Exception):
    """A refusal that an endpoint decides itself."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(detail or ANSWERS[code][1])
        self.code = code


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field. `field`: "tags.0" is the first tag, "" the whole body."""

    field: str
    code: str
    detail: str


def problem_response(error: Exception, context: dict[str, Any]) -> Response:
    """Answer any error of an endpoint; DRF calls it."""
    code = _code_of(error)
    if code == Code.SERVER_ERROR:
        # DRF would pass it on to Django's HTML page; the signal is what error reporters listen to.
        logger.exception("the API broke", exc_info=error)
        got_request_exception.send(sender=None, request=context.get("request"))
    response = response_for(code, _detail_of(error, code), list(_field_errors_of(error)))
    if scheme := getattr(error, "auth_header", ""):  # set by DRF on what answers 401
        response["WWW-Authenticate"] = scheme
    return response


def response_for(code: Code, detail: str = "", errors: Sequence[FieldError] = ()) -> Response:
    status, sentence = ANSWERS[code]
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail or sentence,
        "code": code.value,
    }
    if errors:
        body["errors"] = [asdict(error) for error in errors]
    response = Response(body, status=status, content_type=MEDIA_TYPE)
    if code in RETRY_AFTER_S:
        response["Retry-After"] = str(RETRY_AFTER_S[code])
    return response


def _code_of(error: Exception) -> Code:
    if isinstance(error, Problem):
        return error.code
    return next((code for kind, code in _CODES if isinstance(error, kind)), Code.SERVER_ERROR)


def _detail_of(error: Exception, code: Code) -> str:
    if isinstance(error, (Problem, *_SPEAKING)):
        return str(error)
    if isinstance(error, rest.ParseError | rest.UnsupportedMediaType):
        return f"{str(error.detail).rstrip('.')}."
    return ANSWERS[code][1]


def _field_errors_of(error: Exception) -> Iterator[FieldError]:
    if isinstance(error, rest.ValidationError):
        yield from _flatten(error.detail, "")


def _flatten(detail: Any, path: str) -> Iterator[FieldError]:
    """Walk DRF's nested errors: {"tags": {0: ["too long"]}} gives field “tags.0”."""
    if isinstance(detail, dict):
        for name, inner in detail.items():
            inside = "" if name == "non_field_errors" else str(name)
            yield from _flatten(inner, ".".join(part for part in (path, inside) if part))
    elif isinstance(detail, list):
        for inner in detail:
            yield from _flatten(inner, path)
    else:
        yield FieldError(path, getattr(detail, "code", "invalid"), str(detail))
