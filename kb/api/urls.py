"""The addresses below /api/v1/. Each but the last stands in the OpenAPI document."""

from django.urls import path, re_path

from kb.api.views import account, collections, conversations, documents, messages, search
from kb.api.views.docs import Schema, UnknownAddress, docs

app_name = "api"
urlpatterns = [
    path("me/", account.Me.as_view(), name="me"),
    path("tokens/", account.Tokens.as_view(), name="tokens"),
    path("tokens/<int:pk>/", account.Token.as_view(), name="token"),
    path("collections/", collections.Collections.as_view(), name="collections"),
    path("collections/<int:pk>/", collections.OneCollection.as_view(), name="collection"),
    path("collections/<int:pk>/members/", collections.Members.as_view(), name="members"),
    path(
        "collections/<int:pk>/members/<int:member_id>/",
        collections.Member.as_view(),
        name="member",
    ),
    path("documents/", documents.Documents.as_view(), name="documents"),
    path("documents/<int:pk>/", documents.OneDocument.as_view(), name="document"),
    path("documents/<int:pk>/download/", documents.Download.as_view(), name="document-download"),
    path("documents/<int:pk>/retry/", documents.Retry.as_view(), name="document-retry"),
    path("documents/<int:pk>/versions/", documents.Versions.as_view(), name="document-versions"),
    path("documents/<int:pk>/passages/", documents.Passages.as_view(), name="document-passages"),
    path("passages/<int:pk>/", documents.Passage.as_view(), name="passage"),
    path("jobs/", documents.Jobs.as_view(), name="jobs"),
    path("jobs/<int:pk>/", documents.OneJob.as_view(), name="job"),
    path("search/", search.Search.as_view(), name="search"),
    path("conversations/", conversations.Conversations.as_view(), name="conversations"),
    path("conversations/<int:pk>/", conversations.OneConversation.as_view(), name="conversation"),
    path("conversations/<int:pk>/messages/", messages.Messages.as_view(), name="messages"),
    path("messages/<int:pk>/", messages.OneMessage.as_view(), name="message"),
    path("messages/<int:pk>/stream/", messages.Stream.as_view(), name="message-stream"),
    path("messages/<int:pk>/stop/", messages.Stop.as_view(), name="message-stop"),
    path("messages/<int:pk>/regenerate/", messages.Regenerate.as_view(), name="message-regenerate"),
    path("messages/<int:pk>/edit/", messages.Edit.as_view(), name="message-edit"),
    path("messages/<int:pk>/rating/", messages.Rating.as_view(), name="message-rating"),
    path("schema/", Schema.as_view(), name="schema"),
    path("docs/", docs, name="docs"),
    re_path("", UnknownAddress.as_view(), name="unknown"),
]
