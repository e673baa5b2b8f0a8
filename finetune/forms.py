"""What curators type, checked."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from finetune.models import Dataset
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
