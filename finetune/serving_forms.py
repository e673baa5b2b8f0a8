"""What owners type when they activate, erase, or say when to train again."""

from typing import Any

from django import forms
from django.contrib.auth.models import Group
from django.utils.translation import gettext_lazy as _

from finetune.models import RetrainRule


class ActivateForm(forms.Form):
    """Who gets the adapter, and why; `override_reason` only where the gate says no."""

    share = forms.IntegerField(
        label=_("Share of the conversations, in percent"), min_value=1, max_value=100, initial=100,
        help_text=_("Below 100 it is a trial: the others are answered by what serves now."),
    )  # fmt: skip
    groups = forms.ModelMultipleChoiceField(
        Group.objects.none(), label=_("Only for these groups"), required=False,
        help_text=_("None means everybody who may read what it learned from."),
        widget=forms.CheckboxSelectMultiple,
    )  # fmt: skip
    reason = forms.CharField(
        label=_("Why"), max_length=1_000, widget=forms.Textarea(attrs={"rows": 2}),
        help_text=_("Kept with the activation and in the log."),
    )  # fmt: skip
    override_reason = forms.CharField(
        label=_("Why although the gate says no"), max_length=1_000, required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=_("Your name stays with this decision."),
    )  # fmt: skip

    def __init__(self, *args: Any, is_open: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["groups"] = forms.ModelMultipleChoiceField(
            Group.objects.order_by("name"), label=self.fields["groups"].label, required=False,
            help_text=self.fields["groups"].help_text, widget=forms.CheckboxSelectMultiple,
        )  # fmt: skip
        if not Group.objects.exists():
            del self.fields["groups"]
        if is_open:
            del self.fields["override_reason"]
        else:
            self.fields["override_reason"].required = True


class RuleForm(forms.ModelForm):
    """When a data set asks for a new run; shares are typed in percent."""

    stale_percent = forms.IntegerField(
        label=_("Stale pairs, in percent"), min_value=0, max_value=100, required=False,
        help_text=_("Of the pairs that the last run learned from. Empty or 0: not looked at."),
    )  # fmt: skip
    drop_percent = forms.IntegerField(
        label=_("Fall of good ratings, in percentage points"), min_value=0, max_value=100,
        required=False,
        help_text=_("Within 30 days, where it is more than chance. Empty or 0: not looked at."),
    )  # fmt: skip

    class Meta:
        model = RetrainRule
        fields = ["is_on", "new_pairs", "every_days"]
        labels = {
            "is_on": _("Use this rule"),
            "new_pairs": _("Newly approved pairs"),
            "every_days": _("Days since the last run"),
        }
        help_texts = {
            "new_pairs": _("Approved since the last run. 0: not looked at."),
            "every_days": _("0: not looked at."),
        }

    field_order = ["is_on", "new_pairs", "stale_percent", "drop_percent", "every_days"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["stale_percent"] = round(100 * self.instance.stale_share)
        self.initial["drop_percent"] = round(100 * self.instance.rating_drop)

    def save(self, commit: bool = True) -> RetrainRule:
        self.instance.stale_share = (self.cleaned_data["stale_percent"] or 0) / 100
        self.instance.rating_drop = (self.cleaned_data["drop_percent"] or 0) / 100
        saved: RetrainRule = super().save(commit)
        return saved


class TraceForm(forms.Form):
    """What should be forgotten: a document, by name or number, or a person, by username."""

    kind = forms.ChoiceField(
        choices=[("document", _("A document")), ("person", _("A person"))], label=_("What")
    )
    name = forms.CharField(
        label=_("Name"), max_length=255,
        help_text=_("The document’s name or number, or the person’s username."),
    )  # fmt: skip
