"""What curators type, checked."""

from typing import Any

from django import forms
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils.translation import gettext_lazy as _

from finetune import drafting
from finetune.drafts import Style
from finetune.models import Dataset, InstructionPair, PairImport, PairSource, Review
from kb.forms import TagsField
from kb.models import Collection, Document, User


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
                writable,
                label=_("Collection"),
                help_text=self.fields["collection"].help_text,
                empty_label=_("Choose one"),
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


# What the list can be sorted by: (expression, label, largest first).
SORTS: dict[str, tuple[str, Any, bool]] = {
    "newest": ("pk", _("Newest first"), True),
    "urgent": ("priority", _("Review order"), True),
    "words": ("word_count", _("Words"), True),
    "output": ("output_words", _("Words of the output"), True),
    "support": ("support", _("Support"), False),
    "repetition": ("repetition", _("Repetition"), True),
    "language": ("language", _("Language"), False),
    "flags": ("flags__len", _("Number of flags"), True),
    "updated": ("updated_at", _("Last changed"), True),
}


class PairFilterForm(forms.Form):
    """What narrows the list of pairs. Anything that makes no sense narrows nothing."""

    q = forms.CharField(required=False, max_length=200, label=_("Words in it"))
    state = forms.ChoiceField(
        required=False, choices=[("", _("All")), *InstructionPair.State.choices]
    )
    origin = forms.ChoiceField(
        required=False,
        choices=[("", _("Any origin")), *InstructionPair.Origin.choices],
        label=_("Origin"),
    )
    flag = forms.ChoiceField(
        required=False,
        choices=[
            ("", _("Any flags")),
            ("any", _("Flagged")),
            ("none", _("Without a flag")),
            ("disputed", _("Disputed")),
            *InstructionPair.Flag.choices,
        ],
        label=_("Flag"),
    )
    language = forms.CharField(required=False, max_length=32, label=_("Language"))
    tag = forms.CharField(required=False, max_length=50, label=_("Tag"))
    document = forms.CharField(required=False, max_length=200, label=_("Document"))
    reviewer = forms.CharField(required=False, max_length=150, label=_("Reviewer"))

    def narrow(self, pairs: QuerySet[InstructionPair]) -> QuerySet[InstructionPair]:
        self.is_valid()
        chosen = self.cleaned_data
        if words := chosen.get("q"):
            pairs = pairs.filter(Q(instruction__icontains=words) | Q(output__icontains=words))
        for name in ("state", "origin", "language"):
            if value := chosen.get(name):
                pairs = pairs.filter(**{name: value})
        if tag := chosen.get("tag"):
            pairs = pairs.filter(tags__contains=[tag])
        if reviewer := chosen.get("reviewer"):
            judged = Review.objects.filter(
                pair=OuterRef("pk"), reviewer__username=reviewer, undone_at=None
            )
            pairs = pairs.filter(Exists(judged))
        if document := chosen.get("document"):
            sources = PairSource.objects.filter(pair=OuterRef("pk"))
            named = Q(title__icontains=document) | Q(document_name__icontains=document)
            pairs = pairs.filter(Exists(sources.filter(named)))
        return self._narrow_by_flag(pairs, chosen.get("flag", ""))

    def _narrow_by_flag(
        self, pairs: QuerySet[InstructionPair], flag: str
    ) -> QuerySet[InstructionPair]:
        if flag == "any":
            return pairs.exclude(flags=[])
        if flag == "none":
            return pairs.filter(flags=[])
        if flag == "disputed":
            return pairs.filter(is_disputed=True)
        return pairs.filter(flags__contains=[flag]) if flag else pairs

    @property
    def is_narrowing(self) -> bool:
        self.is_valid()
        return any(self.cleaned_data.values())


class PairForm(forms.ModelForm):
    """A pair typed or edited by hand."""

    tags = TagsField(required=False, label=_("Tags"), help_text=_("Divided by commas."))

    class Meta:
        model = InstructionPair
        fields = ["instruction", "input", "output", "rejected", "system", "tags"]
        labels = {
            "input": _("Input"),
            "rejected": _("Rejected output"),
            "system": _("System"),
        }
        help_texts = {
            "instruction": _("What somebody asks."),
            "input": _("Text that the instruction is about, where there is one."),
            "output": _("What the model should answer. [1] cites the first passage."),
            "rejected": _("A worse answer, for learning preferences. Leave it empty otherwise."),
            "system": _("What the model is told before everything else. Mostly empty."),
        }
        widgets = {
            "instruction": forms.Textarea(attrs={"rows": 2}),
            "input": forms.Textarea(attrs={"rows": 2}),
            "output": forms.Textarea(attrs={"rows": 6}),
            "rejected": forms.Textarea(attrs={"rows": 3}),
            "system": forms.Textarea(attrs={"rows": 2}),
        }

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if not (cleaned.get("output") or cleaned.get("rejected")):
            self.add_error("output", _("Say what the model should answer."))
        return cleaned


class RejectForm(forms.Form):
    reason = forms.CharField(max_length=300, label=_("Why"))


class TagPairsForm(forms.Form):
    tags = TagsField(label=_("Tags to add"), help_text=_("Divided by commas."))


# --- Snapshots -----------------------------------------------------------------------------------


class FreezeForm(forms.Form):
    """How a snapshot is split; what training and validation leave is for the test."""

    train = forms.IntegerField(label=_("For training, %"), min_value=1, max_value=100, initial=80)
    validation = forms.IntegerField(
        label=_("For validation, %"), min_value=0, max_value=99, initial=10
    )
    seed = forms.IntegerField(
        label=_("Seed"),
        min_value=0,
        max_value=2**31 - 1,
        initial=0,
        help_text=_("The same seed and pairs give the same snapshot."),
    )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if cleaned.get("train", 0) + cleaned.get("validation", 0) > 100:
            raise forms.ValidationError(_("Training and validation are more than 100% together."))
        return cleaned


# --- Drafts ---------------------------------------------------------------------------------------


class DraftForm(forms.Form):
    """What to draft pairs from, how many, and in which ways to ask."""

    wanted = forms.IntegerField(
        label=_("How many pairs"), initial=20, min_value=1, max_value=drafting.MOST_WANTED
    )
    styles = forms.MultipleChoiceField(
        label=_("Ways to ask"), widget=forms.CheckboxSelectMultiple, choices=()
    )
    collections = forms.ModelMultipleChoiceField(
        Collection.objects.none(),
        label=_("From"),
        widget=forms.CheckboxSelectMultiple,
        help_text=_("A pair is seen only by curators who may read its passages."),
    )
    documents = forms.CharField(
        required=False,
        max_length=200,
        label=_("Only documents named"),
        help_text=_("A part of the name or title; empty for all."),
    )
    unused_first = forms.BooleanField(
        required=False, initial=True, label=_("Documents without pairs first")
    )
    distractors = forms.IntegerField(
        label=_("With distracting passages, in percent"),
        initial=30,
        min_value=0,
        max_value=100,
        help_text=_(
            "The right passage stands among near but wrong ones: the model learns to cite."
        ),
    )
    abstentions = forms.IntegerField(
        label=_("Without the right passage, in percent"),
        initial=10,
        min_value=0,
        max_value=100,
        help_text=_("Only wrong passages are given: the model learns to say that it is not there."),
    )

    def __init__(self, *args: Any, user: User, dataset: Dataset, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._user = user
        offered = drafting.offered_styles()
        styles, collections = self.fields["styles"], self.fields["collections"]
        assert isinstance(styles, forms.MultipleChoiceField)
        assert isinstance(collections, forms.ModelMultipleChoiceField)
        styles.choices = [(style.value, STYLES[style]) for style in offered]
        styles.initial = [style.value for style in offered]
        collections.queryset = Collection.objects.readable_by(user).order_by("name")
        collections.initial = [dataset.collection_id]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if cleaned.get("distractors", 0) + cleaned.get("abstentions", 0) > 100:
            self.add_error("abstentions", _("Both shares together are more than 100 percent."))
        if "collections" in cleaned and not self._documents(cleaned):
            self.add_error("documents", _("No document of these collections has this in its name."))
        return cleaned

    def _documents(self, cleaned: dict[str, Any]) -> list[int]:
        """Give the documents named, at least one; [0] stands for all of them."""
        if not (name := cleaned.get("documents", "").strip()):
            return [0]
        named = Document.objects.visible_to(self._user).filter(
            Q(name__icontains=name) | Q(title__icontains=name),
            collection__in=cleaned["collections"],
        )
        return list(named.values_list("pk", flat=True)[:10_000])

    def choice(self) -> drafting.Choice:
        chosen = self.cleaned_data
        return drafting.Choice(
            styles=[Style(style) for style in chosen["styles"]],
            collections=[collection.pk for collection in chosen["collections"]],
            documents=[pk for pk in self._documents(chosen) if pk],
            unused_first=chosen["unused_first"],
            distractors=chosen["distractors"],
            abstentions=chosen["abstentions"],
        )


STYLES = {
    Style.FACTUAL: _("Facts"),
    Style.HOW_TO: _("How to do something"),
    Style.COMPARISON: _("Comparisons"),
    Style.YES_NO: _("Yes or no, with the reason"),
    Style.FOLLOW_UP: _("Follow-up questions"),
}
