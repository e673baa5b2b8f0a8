"""What the person with the card types, checked by the recipe's own rules."""

from dataclasses import fields
from typing import Any

from django import forms
from django.db.models import QuerySet
from django.utils.text import slugify
from django.utils.translation import gettext_lazy as _

from finetune.contract import ATTENTION_LAYERS, TGI_FAMILIES
from finetune.hyperparameters import LINEAR_LAYERS, InvalidConfig, TrainingConfig
from finetune.models import DatasetSnapshot

MOST_RUNS = 12  # of one sweep
METHODS = {
    "lora": _("LoRA"),
    "rslora": _("LoRA, rank-stabilised"),
    "dora": _("DoRA"),
    "qlora": _("QLoRA: the base in 4 bit"),
    "prompt": _("Prompt tuning"),
    "prefix": _("Prefix tuning"),
}
# Names of layers that learn, as a base of that family calls them.
LAYERS = {
    "auto": _("All, by the base's name"),
    "all": _("All, as in Llama, Mistral, Qwen, Gemma and Granite"),
    "attention": _("Attention only"),
    "phi3": _("All, as in Phi-3"),
    "starcoder2": _("All, as in Starcoder2"),
}
_NAMED = {"phi3": ("phi-3", "phi3", "phi-4", "phi4"), "starcoder2": ("starcoder2",)}
SERVERS = {"own": _("Tacit's own model server"), "tgi": _("TGI"), "vllm": _("vLLM")}
_DEFAULTS = {each.name: each.default for each in fields(TrainingConfig)}


def layers_of(choice: str, base_model: str) -> tuple[str, ...]:
    """Give the names of the layers that learn; the pre-flight checks them on the base itself."""
    if choice == "auto":
        family = str(base_model).lower().rstrip("/").rpartition("/")[2]
        found = (name for name, marks in _NAMED.items() if any(mark in family for mark in marks))
        choice = next(found, "all")
    if choice == "attention":
        return ATTENTION_LAYERS
    return TGI_FAMILIES.get(choice, LINEAR_LAYERS)


def _numbers(text: str, kind: type[int] | type[float]) -> list[Any]:
    """Read "16, 32"; raises ValueError."""
    return [kind(part) for part in text.replace(";", ",").split(",") if part.strip()]


class RunForm(forms.Form):
    """A run; several learning rates or ranks make a sweep."""

    snapshot = forms.ModelChoiceField(DatasetSnapshot.objects.none(), label=_("Snapshot"))
    name = forms.CharField(
        label=_("Name"), max_length=100, help_text=_("Part of the adapter's name.")
    )
    base_model = forms.CharField(
        label=_("Base model"),
        max_length=300,
        help_text=_("A folder on the training machine, or a name on the hub."),
    )
    revision = forms.CharField(
        label=_("Revision"), max_length=100, required=False,
        help_text=_("Of the hub: a commit, so that the base cannot change below the adapter."),
    )  # fmt: skip
    server = forms.ChoiceField(
        label=_("What will serve it"), choices=SERVERS.items(),
        help_text=_("What this server could not load is refused before training."),
    )  # fmt: skip
    learn_from = forms.ChoiceField(
        label=_("Learn from"),
        choices=[("sft", _("Answers")), ("dpo", _("Preferences: chosen and rejected answers"))],
    )
    method = forms.ChoiceField(label=_("Method"), choices=METHODS.items())
    rank = forms.CharField(
        label=_("Rank"), initial="16", max_length=60,
        help_text=_("Several, such as 16, 32, are tried in turn."),
    )  # fmt: skip
    learning_rate = forms.CharField(
        label=_("Learning rate"), initial="2e-4", max_length=100,
        help_text=_("LoRA wants about ten times that of full training. Several are tried in turn."),
    )  # fmt: skip
    layers = forms.ChoiceField(
        label=_("Layers that learn"), choices=LAYERS.items(), required=False,
        help_text=_("The pre-flight says when the base names its layers otherwise."),
    )  # fmt: skip
    shards = forms.IntegerField(
        label=_("Cards that serve it"), initial=_DEFAULTS["shards"], required=False,
        help_text=_("TGI on four cards or more needs a rank of 32 or 64."),
    )  # fmt: skip
    epochs = forms.IntegerField(label=_("Epochs"), initial=_DEFAULTS["epochs"])
    batch_size = forms.IntegerField(label=_("Rows at once"), initial=_DEFAULTS["batch_size"])
    accumulation = forms.IntegerField(label=_("Batches a step"), initial=_DEFAULTS["accumulation"])
    max_length = forms.IntegerField(
        label=_("Longest row, in tokens"), initial=_DEFAULTS["max_length"],
        help_text=_("Of a longer row the context is cut, never the answer."),
    )  # fmt: skip
    patience = forms.IntegerField(
        label=_("Patience"), initial=_DEFAULTS["patience"],
        help_text=_("Evaluations without gain before it stops; 0 trains to the end."),
    )  # fmt: skip
    seed = forms.IntegerField(label=_("Seed"), initial=0)
    gradient_checkpointing = forms.BooleanField(
        label=_("Save memory by computing activations twice"), required=False
    )

    MAIN = ("snapshot", "name", "base_model", "server")
    MORE = (
        "learn_from", "method", "rank", "layers", "shards", "learning_rate", "epochs", "batch_size", "accumulation",
        "max_length", "patience", "seed", "revision", "gradient_checkpointing",
    )  # fmt: skip

    def __init__(self, *args: Any, snapshots: QuerySet[DatasetSnapshot], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["snapshot"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = snapshots
        field.empty_label = None

    def main_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.MAIN]

    def more_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.MORE]

    def more_is_wrong(self) -> bool:
        return any(name in self.errors for name in self.MORE) or bool(self.non_field_errors())

    def clean_rank(self) -> list[int]:
        return self._several("rank", int)

    def clean_learning_rate(self) -> list[float]:
        return self._several("learning_rate", float)

    def _several(self, name: str, kind: type[int] | type[float]) -> list[Any]:
        try:
            values = _numbers(self.cleaned_data[name], kind)
        except ValueError:
            values = []
        if not values:
            raise forms.ValidationError(_("A number, or several with commas between them."))
        return values

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if self.errors:
            return cleaned
        if len(cleaned["rank"]) * len(cleaned["learning_rate"]) > MOST_RUNS:
            raise forms.ValidationError(_("These are more than twelve runs; try fewer at once."))
        try:
            self.configs()
        except InvalidConfig as error:
            raise forms.ValidationError(error.problems) from error
        return cleaned

    def configs(self) -> list[tuple[str, TrainingConfig]]:
        """Give name and settings of each run. Raises InvalidConfig."""
        told, name = self.cleaned_data, self.cleaned_data["name"]
        pairs = [(rank, rate) for rank in told["rank"] for rate in told["learning_rate"]]
        return [
            (name if len(pairs) == 1 else f"{name} · {rank} · {rate:g}", self._config(rank, rate))
            for rank, rate in pairs
        ]

    def _config(self, rank: int, rate: float) -> TrainingConfig:
        told, method = self.cleaned_data, self.cleaned_data["method"]
        is_lora = method not in ("prompt", "prefix")
        slug = slugify(told["name"]) or "adapter"
        same = ("base_model", "revision", "server", "epochs", "batch_size", "accumulation")
        more = ("max_length", "patience", "seed", "gradient_checkpointing")
        return TrainingConfig(
            **{field: told[field] for field in (*same, *more)},
            slug=slug[:40].strip("-") or "adapter",
            method=told["learn_from"],
            adapter="lora" if is_lora else method,
            quantize=method == "qlora",
            use_rslora=method == "rslora",
            use_dora=method == "dora",
            packing=is_lora,
            target_modules=layers_of(told["layers"] or "auto", told["base_model"]),
            shards=1 if told["shards"] is None else told["shards"],
            rank=rank,
            alpha=2 * rank,
            learning_rate=rate,
        )
