"""What curators type, checked."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from finetune.models import Dataset, InstructionPair, PairImport
from kb.models import Collection, User


class DatasetForm(forms.ModelForm):
    """A data set; its collection is chosen once, when it is made."""

    class Meta:
        model = Dataset
        fields = ["collection", "name", "description", "purpose", "reviews_wanted"]
        labels = {
            "purpose": _("What it is for"),
            "reviews_wanted": _("People who must agree on a pair"),
        }
        help_texts = {
            "collection": _("Its curators review the pairs; its documents are their sources."),
            "purpose": _("Evaluation pairs are never trained on; training pairs are kept apart."),
            "reviews_wanted": _("With two or more, agreement is measured and a third decides."),
        }
        widgets = {
            "description": forms.Textarea(attrs={"rows": 3}),
            "reviews_wanted": forms.NumberInput(attrs={"min": 1, "max": 5}),
        }

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            del self.fields["collection"]
        else:
            writable = Collection.objects.writable_by(user).order_by("name")
            self.fields["collection"] = forms.ModelChoiceField(
                writable, label=_("Collection"), help_text=self.fields["collection"].help_text
            )

    def clean_reviews_wanted(self) -> int:
        wanted: int = self.cleaned_data["reviews_wanted"]
        if not 1 <= wanted <= 5:
            raise forms.ValidationError(_("From 1 to 5."))
        return wanted

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        collection = cleaned.get("collection") or getattr(self.instance, "collection", None)
        same = Dataset.objects.filter(collection=collection, name=cleaned.get("name", ""))
        if collection and same.exclude(pk=self.instance.pk).exists():
            self.add_error("name", _("This collection has a data set with this name already."))
        return cleaned


# --- Import and export ----------------------------------------------------------------------------


class ReadingForm(forms.Form):
    """How a file is read: its format and, mapped by hand, which column gives which field."""

    LABELS = {
        "instruction": _("Instruction"),
        "input": _("Input"),
        "output": _("Output"),
        "rejected": _("Rejected output"),
        "system": _("System prompt"),
        "messages": _("Earlier turns, or a conversation"),
        "tags": _("Tags"),
    }

    def __init__(self, *args: Any, columns: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["format"] = forms.ChoiceField(
            choices=PairImport.Format.choices, label=_("Read as")
        )
        choices = [("", _("no column")), *((column, column) for column in columns)]
        for name, label in self.LABELS.items():
            self.fields[name] = forms.ChoiceField(choices=choices, label=label, required=False)

    @property
    def columns(self) -> list[forms.BoundField]:
        return [self[name] for name in self.LABELS]

    @property
    def mapping(self) -> dict[str, str]:
        """Which column gives which field, those without one left out."""
        cleaned = self.cleaned_data
        return {name: cleaned[name] for name in self.LABELS if cleaned.get(name)}

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if cleaned.get("format") != PairImport.Format.COLUMNS:
            return cleaned
        chosen = [cleaned[name] for name in self.LABELS if cleaned.get(name)]
        if twice := sorted({column for column in chosen if chosen.count(column) > 1}):
            message = _("The column “%(name)s” can give one field only.") % {"name": twice[0]}
            raise forms.ValidationError(message)
        if not cleaned.get("messages") and not cleaned.get("instruction"):
            raise forms.ValidationError(_("Choose the column of the instruction."))
        return cleaned


class ExportForm(forms.Form):
    """Which pairs go into a file, and of what kind it is."""

    kind = forms.ChoiceField(label=_("File"))
    state = forms.MultipleChoiceField(
        choices=InstructionPair.State.choices,
        label=_("Pairs that are"),
        widget=forms.CheckboxSelectMultiple,
        required=False,
    )
    tag = forms.CharField(
        label=_("With any of these tags"),
        required=False,
        max_length=500,
        help_text=_("Separated by commas; every pair when empty."),
    )
    provenance = forms.BooleanField(
        label=_("Say of every pair where it comes from and who judged it"),
        required=False,
        initial=True,
        help_text=_(
            "Documents, passages with their text, authors and reviewers. Leave it out for a file"
            " that goes to people who may not read the sources."
        ),
    )

    def __init__(self, *args: Any, kinds: dict[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["kind"].choices = list(kinds.items())  # type: ignore[attr-defined]

    def clean_tag(self) -> list[str]:
        return [tag.strip() for tag in self.cleaned_data["tag"].split(",") if tag.strip()]
