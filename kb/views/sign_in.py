"""Signing in and out, and setting a password from a link."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import views as auth_views
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse, reverse_lazy
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from kb import limits, mail
from kb.forms import ResetForm, SignInForm
from kb.models import User

sign_in = auth_views.LoginView.as_view(
    authentication_form=SignInForm,
    redirect_authenticated_user=True,
    extra_context={"sends_mail": mail.is_configured},
)
sign_out = auth_views.LogoutView.as_view()


@login_not_required
def admin_sign_in(request: HttpRequest) -> HttpResponse:
    """Sign in to the back office on the same page as everywhere; strangers find nothing there."""
    if request.user.is_authenticated:
        raise Http404
    return redirect(f"{reverse(settings.LOGIN_URL)}?{request.GET.urlencode()}")


@login_not_required
@never_cache
@require_http_methods(["GET", "POST"])
def password_reset(request: HttpRequest) -> HttpResponse:
    """Mail a link to whoever has the address; the page says the same when nobody has it."""
    form = ResetForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        if not limits.allow("login", f"reset:{limits.client_address(request)}"):
            form.add_error(None, _("Too many attempts. Wait a minute, then try again."))
        else:
            address = form.cleaned_data["email"]
            for person in User.objects.filter(email__iexact=address, is_active=True):
                mail.send_password_reset(person)
            return redirect("password_reset_sent")
    context = {"form": form, "sends_mail": mail.is_configured()}
    return render(request, "registration/password_reset.html", context)


@login_not_required
def password_reset_sent(request: HttpRequest) -> HttpResponse:
    return render(request, "registration/password_reset_sent.html")


class PasswordFromLink(auth_views.PasswordResetConfirmView):
    """Set a password from an invitation or a reset, once, and sign in with it."""

    template_name = "registration/set_password.html"
    success_url = reverse_lazy(settings.LOGIN_REDIRECT_URL)
    post_reset_login = True
    post_reset_login_backend = "django.contrib.auth.backends.ModelBackend"

    def get_user(self, uidb64: str) -> User | None:
        """Leave removed people out: their old links must not let them set a password."""
        user: Any = super().get_user(uidb64)
        return user if user is not None and user.is_active else None

    def form_valid(self, form: Any) -> HttpResponse:
        messages.success(self.request, _("Your password is set, and you are signed in."))
        return super().form_valid(form)
