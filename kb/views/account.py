"""One's own account: name, password, look, keys for programs, and signing out everywhere."""

from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from kb.forms import ChangePasswordForm, PasswordForm, ProfileForm, TokenForm
from kb.models import ApiToken
from kb.views.requests import PersonRequest, go_to


@require_http_methods(["GET", "POST"])
def account(request: PersonRequest) -> HttpResponse:
    form = ProfileForm(request.POST or None, instance=request.user)
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, _("Saved."))
        return go_to(request, "account")
    request.user.refresh_from_db()  # the frame must not show what was refused
    return render(request, "kb/account.html", {"form": form, "tab": "profile"})


@sensitive_post_parameters()
@require_http_methods(["GET", "POST"])
def account_password(request: PersonRequest) -> HttpResponse:
    """Change the password; every other session of this person ends."""
    form = ChangePasswordForm(request.user, request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.save()
        update_session_auth_hash(request, request.user)
        messages.success(request, _("Your password is changed. Other devices are signed out."))
        return go_to(request, "account_password")
    context = {"form": form, "everywhere_form": PasswordForm(user=request.user), "tab": "password"}
    return render(request, "kb/account_password.html", context)


@sensitive_post_parameters()
@require_POST
def account_sign_out_everywhere(request: PersonRequest) -> HttpResponse:
    """End every other session: they hang on the password's hash, which gets a new salt."""
    form = PasswordForm(request.POST, user=request.user)
    if form.is_valid():
        request.user.set_password(form.cleaned_data["password"])
        request.user.save(update_fields=["password"])
        update_session_auth_hash(request, request.user)
        messages.success(request, _("All other devices are signed out."))
        return go_to(request, "account_password")
    context = {
        "form": ChangePasswordForm(request.user),
        "everywhere_form": form,
        "tab": "password",
    }
    return render(request, "kb/account_password.html", context)


@require_GET
def account_look(request: PersonRequest) -> HttpResponse:
    return render(request, "kb/account_look.html", {"tab": "look"})


@require_http_methods(["GET", "POST"])
def account_tokens(request: PersonRequest) -> HttpResponse:
    """List the keys; a new one's secret is in the answer to its creation and nowhere else."""
    form, secret = TokenForm(request.POST or None), ""
    if request.method == "POST" and form.is_valid():
        _token, secret = ApiToken.objects.issue(
            request.user,
            name=form.cleaned_data["name"],
            scopes=form.cleaned_data["scopes"],
            expires_at=form.expires_at(),
        )
        form = TokenForm()
    tokens = request.user.api_tokens.filter(revoked_at=None).order_by("-created_at")
    context = {
        "form": form,
        "secret": secret,
        "tokens": tokens,
        "scopes": ApiToken.Scope.choices,
        "now": timezone.now(),
        "tab": "tokens",
    }
    return render(request, "kb/account_tokens.html", context)


@require_POST
def account_token_revoke(request: PersonRequest, pk: int) -> HttpResponse:
    token = get_object_or_404(request.user.api_tokens.filter(revoked_at=None), pk=pk)
    token.revoked_at = timezone.now()
    token.save(update_fields=["revoked_at"])
    messages.success(request, _("“%(name)s” no longer works.") % {"name": token.name})
    return go_to(request, "account_tokens")
