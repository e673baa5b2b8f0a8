"""What people type, checked."""

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from kb import limits
from kb.models import ApiToken, Collection, Document, Membership, User

MAX_TAGS = 20
MAX_TAG_LENGTH = 50
WORKING = "working"  # queued or being read
# What the list of documents can be narrowed to, and the media types behind each word.
KINDS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "pdf": (_("PDF"), ("application/pdf",)),
    "word": (
        _("Word"),
        ("application/vnd.openxmlformats-officedocument.wordprocessingml.document",),
    ),
    "slides": (
        _("Slides"),
        ("application/vnd.openxmlformats-officedocument.presentationml.presentation",),
    ),
    "sheet": (
        _("Sheet"),
        ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "text/csv"),
    ),
    "web": (_("Web page"), ("text/html", "application/xhtml+xml")),
    "markdown": (_("Markdown"), ("text/markdown",)),
    "text": (_("Text"), ("text/plain",)),
    "book": (_("E-book"), ("application/epub+zip",)),
    "mail": (_("E-mail"), ("message/rfc822",)),
}


class TagsField(forms.CharField):
    """Tags in one line, divided by commas; each once, in the order they were typed."""

    def clean(self, value: str | None) -> list[str]:
        text: str = super().clean(value) or ""
        tags = list(dict.fromkeys(" ".join(tag.split()) for tag in text.split(",")))
        tags = [tag for tag in tags if tag]
        if len(tags) > MAX_TAGS:
            raise ValidationError(_("At most %(n)s tags.") % {"n": MAX_TAGS})
        if any(len(tag) > MAX_TAG_LENGTH for tag in tags):
            raise ValidationError(_("A tag has at most %(n)s characters.") % {"n": MAX_TAG_LENGTH})
        return tags

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value


class DocumentFilterForm(forms.Form):
    """What narrows the list of documents. Anything that makes no sense narrows nothing."""

    q = forms.CharField(required=False, max_length=200, label=_("Name"))
    state = forms.ChoiceField(
        required=False,
        choices=[("", _("All")), ("ready", _("Ready")), (WORKING, ""), ("failed", _("Failed"))],
    )
    kind = forms.ChoiceField(
        required=False,
        choices=[("", _("Any type")), *((key, label) for key, (label, _types) in KINDS.items())],
        label=_("Type"),
    )
    tag = forms.CharField(required=False, max_length=MAX_TAG_LENGTH, label=_("Tag"))

    def narrow(self, documents: QuerySet[Document]) -> QuerySet[Document]:
        self.is_valid()
        chosen = self.cleaned_data
        if words := chosen.get("q"):
            documents = documents.filter(Q(name__icontains=words) | Q(title__icontains=words))
        if (state := chosen.get("state")) == WORKING:
            documents = documents.exclude(state__in=["ready", "failed"])
        elif state:
            documents = documents.filter(state=state)
        if kind := chosen.get("kind"):
            documents = documents.filter(media_type__in=KINDS[kind][1])
        if tag := chosen.get("tag"):
            documents = documents.filter(tags__contains=[tag])
        return documents

    @property
    def is_narrowing(self) -> bool:
        self.is_valid()
        return any(self.cleaned_data.values())


class DocumentForm(forms.ModelForm):
    tags = TagsField(
        required=False,
        label=_("Tags"),
        help_text=_("Divided by commas. Searches can filter by them."),
    )

    class Meta:
        model = Document
        fields = ["title", "tags"]


class TagDocumentsForm(forms.Form):
    tags = TagsField(label=_("Tags to add"), help_text=_("Divided by commas."))


class CollectionForm(forms.ModelForm):
    class Meta:
        model = Collection
        fields = ["name", "description", "is_public"]
        labels = {"is_public": _("Everyone who can sign in may read it")}
        help_texts = {"is_public": ""}
        widgets = {"description": forms.Textarea(attrs={"rows": 3})}
        error_messages = {
            "name": {"unique": _("There is a collection with this name already. Choose another.")}
        }


class NameAgainForm(forms.Form):
    """Ask for a name again before something large is deleted."""

    typed = forms.CharField(widget=forms.TextInput(attrs={"autocomplete": "off"}))

    def __init__(self, *args: Any, name: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = name
        self.fields["typed"].label = _("Type “%(name)s” to confirm") % {"name": name}

    def clean_typed(self) -> str:
        typed: str = self.cleaned_data["typed"]
        if typed != self.name:
            raise ValidationError(_("This is not the name. Nothing was deleted."))
        return typed


class MemberForm(forms.Form):
    who = forms.CharField(
        max_length=254,
        label=_("Username, e-mail address or group"),
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    role = forms.ChoiceField(choices=Membership.Role.choices, label=_("Role"))


def free_address(address: str, *, but_for: User | None = None) -> str:
    """Return the address when nobody else has it, in whatever case. Raises ValidationError."""
    others = User.objects.exclude(pk=but_for.pk) if but_for else User.objects.all()
    if address and others.filter(email__iexact=address).exists():
        raise ValidationError(_("Somebody here has this address already."))
    return address


class InvitationForm(forms.Form):
    username = forms.CharField(
        max_length=150,
        label=_("Username"),
        help_text=_("Letters, digits and @ . + - _"),
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    email = forms.EmailField(
        required=False,
        label=_("E-mail address"),
        widget=forms.EmailInput(attrs={"autocomplete": "off"}),
    )
    groups = forms.ModelMultipleChoiceField(
        queryset=Group.objects.order_by("name"),
        required=False,
        label=_("Groups"),
        widget=forms.CheckboxSelectMultiple,
    )
    collection = forms.ModelChoiceField(
        queryset=Collection.objects.order_by("name"),
        required=False,
        label=_("Collection"),
        empty_label=_("None for now"),
    )
    role = forms.ChoiceField(
        choices=Membership.Role.choices, required=False, label=_("Role in the collection")
    )

    def clean_email(self) -> str:
        return free_address(self.cleaned_data["email"])


class RemovalForm(forms.Form):
    conversations = forms.ChoiceField(
        choices=[("keep", _("Keep them")), ("delete", _("Delete them for good"))],
        initial="keep",
        label=_("Their conversations"),
        widget=forms.RadioSelect,
    )


class GroupForm(forms.ModelForm):
    class Meta:
        model = Group
        fields = ["name"]
        labels = {"name": _("Name of the group")}
        error_messages = {
            "name": {"unique": _("There is a group with this name already. Choose another.")}
        }


class ProfileForm(forms.ModelForm):
    class Meta:
        model = User
        fields = ["first_name", "last_name", "email"]
        labels = {"email": _("E-mail address")}
        widgets = {
            "first_name": forms.TextInput(attrs={"autocomplete": "given-name"}),
            "last_name": forms.TextInput(attrs={"autocomplete": "family-name"}),
            "email": forms.EmailInput(attrs={"autocomplete": "email"}),
        }

    def clean_email(self) -> str:
        return free_address(self.cleaned_data["email"], but_for=self.instance)


class TokenForm(forms.Form):
    name = forms.CharField(max_length=100, label=_("What is it for?"))
    scopes = forms.MultipleChoiceField(
        choices=ApiToken.Scope.choices,
        initial=[ApiToken.Scope.READ],
        label=_("What may it do?"),
        widget=forms.CheckboxSelectMultiple,
    )
    days = forms.TypedChoiceField(
        choices=[("30", _("In 30 days")), ("90", _("In 90 days")), ("365", _("In a year"))],
        coerce=int,
        initial="90",
        label=_("When does it expire?"),
    )

    def expires_at(self) -> datetime:
        return timezone.now() + timedelta(days=self.cleaned_data["days"])


class PasswordForm(forms.Form):
    """Ask the person who is signed in for their password, once more."""

    password = forms.CharField(
        strip=False,
        label=_("Your password"),
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        if not limits.allow("login", f"user:{self.user.username.casefold()}"):
            raise ValidationError(TOO_MANY_ATTEMPTS)
        if not self.user.check_password(password):
            raise ValidationError(_("This is not your password."))
        return password


class ChangePasswordForm(PasswordChangeForm):
    error_messages = {
        **PasswordChangeForm.error_messages,
        "password_incorrect": _("This is not your password."),
    }


TOO_MANY_ATTEMPTS = _("Too many attempts. Wait a minute, then try again.")


class SignInForm(AuthenticationForm):
    """Sign in; says the same whether the name, the password or the account is wrong."""

    error_messages = {
        "invalid_login": _("This username and this password do not belong together."),
        "inactive": _("This username and this password do not belong together."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.data.get("username"):  # refused: the name stays, the password is typed again
            del self.fields["username"].widget.attrs["autofocus"]
            self.fields["password"].widget.attrs["autofocus"] = True

    def clean(self) -> dict[str, Any]:
        name = self.cleaned_data.get("username", "").casefold()
        assert self.request is not None  # the page of signing in gives it
        address = limits.client_address(self.request)
        # Both are counted, whatever the first says.
        counted = [
            limits.allow("login", f"user:{name}"),
            limits.allow("login_address", address),
        ]
        if not all(counted):
            raise ValidationError(TOO_MANY_ATTEMPTS, code="too_many")
        return super().clean()


class ResetForm(forms.Form):
    email = forms.EmailField(
        label=_("E-mail address"),
        widget=forms.EmailInput(attrs={"autocomplete": "email", "autofocus": True}),
    )
