"""The addresses of the pages."""

from django.urls import path

from kb.views import (
    account,
    answers,
    ask,
    collections,
    context,
    document,
    documents,
    health,
    palette,
    people,
    preview,
    search,
    sign_in,
    source,
)

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("scope/", context.choose_scope, name="scope"),
    path("palette/", palette.palette, name="palette"),
    path("", ask.ask, name="ask"),
    path("conversations/", ask.conversations, name="conversations"),
    path("c/", ask.conversation_begin, name="conversation_begin"),
    path("c/<int:pk>/", ask.conversation, name="conversation"),
    path("c/<int:pk>/ask/", ask.conversation_ask, name="conversation_ask"),
    path("c/<int:pk>/rename/", ask.conversation_rename, name="conversation_rename"),
    path("c/<int:pk>/delete/", ask.conversation_delete, name="conversation_delete"),
    path("messages/<int:pk>/", answers.message, name="message"),
    path("messages/<int:pk>/stream/", answers.message_stream, name="message_stream"),
    path("messages/<int:pk>/stop/", answers.message_stop, name="message_stop"),
    path("messages/<int:pk>/edit/", answers.message_edit, name="message_edit"),
    path("messages/<int:pk>/regenerate/", answers.message_regenerate, name="message_regenerate"),
    path("messages/<int:pk>/rate/", answers.message_rate, name="message_rate"),
    path("messages/<int:pk>/why/", answers.message_why, name="message_why"),
    path("search/", search.search_page, name="search"),
    path("source/citation/<int:pk>/", source.source_citation, name="source_citation"),
    path("source/chunk/<int:pk>/", source.source_chunk, name="source_chunk"),
    path("documents/<int:pk>/read/", source.document_read, name="document_read"),
    path(
        "documents/version/<int:pk>/page/<int:number>.png", source.page_image, name="page_image"
    ),
    # --- Documents ---
    path("documents/", documents.documents, name="documents"),
    path("documents/add/", documents.documents_add, name="documents_add"),
    path("documents/progress/", documents.documents_progress, name="documents_progress"),
    path("documents/retry/", documents.documents_retry, name="documents_retry"),
    path("documents/tag/", documents.documents_tag, name="documents_tag"),
    path("documents/delete/", documents.documents_delete, name="documents_delete"),
    path("documents/<int:pk>/", document.document, name="document"),
    path("documents/<int:pk>/state/", document.document_state, name="document_state"),
    path("documents/<int:pk>/versions/", document.document_versions, name="document_versions"),
    path("documents/<int:pk>/passages/preview/", preview.document_preview, name="document_preview"),
    path("documents/<int:pk>/download/", document.document_download, name="document_download"),
    path("documents/<int:pk>/edit/", document.document_edit, name="document_edit"),
    path("documents/<int:pk>/replace/", document.document_replace, name="document_replace"),
    path("documents/<int:pk>/retry/", document.document_retry, name="document_retry"),
    path("documents/<int:pk>/delete/", document.document_delete, name="document_delete"),
    # --- Collections ---
    path("collections/", collections.collections, name="collections"),
    path("collections/new/", collections.collections_new, name="collections_new"),
    path("collections/<int:pk>/", documents.collection, name="collection"),
    path("collections/<int:pk>/edit/", collections.collections_edit, name="collections_edit"),
    path("collections/<int:pk>/delete/", collections.collections_delete, name="collections_delete"),
    path("collections/<int:pk>/leave/", collections.collections_leave, name="collections_leave"),
    path(
        "collections/<int:pk>/members/",
        collections.collections_members,
        name="collections_members",
    ),
    path(
        "collections/<int:pk>/members/<int:membership_pk>/role/",
        collections.collections_member_role,
        name="collections_member_role",
    ),
    path(
        "collections/<int:pk>/members/<int:membership_pk>/remove/",
        collections.collections_member_remove,
        name="collections_member_remove",
    ),
    # --- People and groups ---
    path("people/", people.people, name="people"),
    path("people/invite/", people.people_invite, name="people_invite"),
    path("people/<int:pk>/", people.person, name="person"),
    path("people/<int:pk>/link/", people.person_link, name="person_link"),
    path("people/<int:pk>/remove/", people.person_remove, name="person_remove"),
    path("people/<int:pk>/restore/", people.person_restore, name="person_restore"),
    path(
        "people/<int:pk>/administrator/", people.person_administrator, name="person_administrator"
    ),
    path("groups/", people.groups, name="groups"),
    path("groups/<int:pk>/", people.group, name="group"),
    path("groups/<int:pk>/delete/", people.group_delete, name="group_delete"),
    path(
        "groups/<int:pk>/people/<int:person_pk>/remove/",
        people.group_remove_person,
        name="group_remove_person",
    ),
    # --- One's own account, signing in ---
    path("account/", account.account, name="account"),
    path("account/password/", account.account_password, name="account_password"),
    path(
        "account/sign-out-everywhere/",
        account.account_sign_out_everywhere,
        name="account_sign_out_everywhere",
    ),
    path("account/look/", account.account_look, name="account_look"),
    path("account/tokens/", account.account_tokens, name="account_tokens"),
    path(
        "account/tokens/<int:pk>/revoke/", account.account_token_revoke, name="account_token_revoke"
    ),
    path("sign-in/", sign_in.sign_in, name="login"),
    path("sign-out/", sign_in.sign_out, name="logout"),
    path("password/forgotten/", sign_in.password_reset, name="password_reset"),
    path("password/sent/", sign_in.password_reset_sent, name="password_reset_sent"),
    path(
        "password/<uidb64>/<token>/",
        sign_in.PasswordFromLink.as_view(),
        name="password_reset_confirm",
    ),
]
