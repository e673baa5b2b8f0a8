"""What a training run is told: every setting with its unit, its range and its default. No torch."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

Method = Literal["sft", "dpo"]
AdapterKind = Literal["lora", "prompt", "prefix"]
Server = Literal["tgi", "vllm", "own"]

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class InvalidConfig(Exception):
    """The settings of a run contradict each other or leave their range; `problems` has sentences."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _number(default: float, low: float, high: float, unit: str, *, above: bool = False) -> Any:
    """Describe a number from `low` (or `above` it) to `high`; forms read this too."""
    return field(default=default, metadata={"low": low, "high": high, "unit": unit, "above": above})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """The settings of one run; refuses wrong ones with `InvalidConfig`.

    `base_model`: a folder or a hub name, then with the exact `revision`. `server`: what will serve
    the adapter, over `shards` cards, which `finetune.contract` checks before training.
    """

    base_model: str
    revision: str = ""
    slug: str = "adapter"
    version: int = _number(1, 1, 1_000_000, "")

    # What learns: supervised fine-tuning or direct preference optimization, of which parameters.
    method: Method = "sft"
    adapter: AdapterKind = "lora"
    quantize: bool = False  # QLoRA: the base in 4-bit NF4; only when it does not fit otherwise
    rank: int = _number(16, 1, 512, "")
    alpha: int = _number(32, 1, 4096, "")  # the scale is alpha / rank
    dropout: float = _number(0.0, 0, 0.9, "share")
    use_rslora: bool = False  # the scale becomes alpha / sqrt(rank)
    use_dora: bool = False
    target_modules: tuple[str, ...] = LINEAR_LAYERS
    virtual_tokens: int = _number(16, 1, 1024, "tokens")  # of prompt and prefix tuning
    beta: float = _number(0.1, 0, 10, "", above=True)  # DPO: how strongly the base holds back

    # How long, and how much at once. A step is one update of the weights.
    epochs: int = _number(3, 1, 1000, "")
    max_steps: int = _number(0, 0, 10_000_000, "steps")  # 0: as many as the epochs have
    batch_size: int = _number(8, 1, 4096, "rows a device")
    accumulation: int = _number(1, 1, 4096, "batches a step")
    max_length: int = _number(2048, 16, 1_000_000, "tokens")
    packing: bool = True

    learning_rate: float = _number(2e-4, 0, 1, "", above=True)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = _number(0.03, 0, 0.5, "share of the steps")
    weight_decay: float = _number(0.0, 0, 1, "")
    max_gradient_norm: float = _number(1.0, 0, 1000, "", above=True)

    # "auto": bf16 where the card has it, else fp32.
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    attention: Literal["sdpa", "eager", "flex_attention", "flash_attention_2"] = "sdpa"
    gradient_checkpointing: bool = False

    # 0: ten times a run. Checkpoints are also written when `checkpoint_every_s` have passed.
    evaluate_every: int = _number(0, 0, 10_000_000, "steps")
    checkpoint_every: int = _number(0, 0, 10_000_000, "steps")
    checkpoint_every_s: float = _number(600, 1, 86_400, "seconds")
    keep_checkpoints: int = _number(2, 2, 1000, "")  # one may be damaged
    patience: int = _number(3, 0, 1000, "evaluations without gain")  # 0: never stop early
    seed: int = _number(0, 0, 2**31 - 1, "")

    server: Server = "tgi"
    shards: int = _number(1, 1, 64, "cards")

    def __post_init__(self) -> None:
        problems = [*_wrong_types(self), *_out_of_range(self)] or list(_contradictions(self))
        if problems:
            raise InvalidConfig(problems)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainingConfig":
        """Read what `to_dict` gave; an unknown or missing setting is an `InvalidConfig`."""
        known = {each.name: each for each in fields(cls)}
        problems = [f"There is no setting “{name}”." for name in values if name not in known] + [
            f"The setting “{each.name}” is missing."
            for each in known.values()
            if each.default is MISSING and each.name not in values
        ]
        if problems:
            raise InvalidConfig(problems)
        given = dict(values)
        if isinstance(given.get("target_modules"), list):
            given["target_modules"] = tuple(given["target_modules"])
        return cls(**given)

    @classmethod
    def from_json(cls, text: str) -> "TrainingConfig":
        try:
            values = json.loads(text)
        except ValueError as error:
            raise InvalidConfig([f"The settings are not JSON: {error}."]) from error
        if not isinstance(values, dict):
            raise InvalidConfig(["The settings must be one JSON object."])
        return cls.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "target_modules": list(self.target_modules)}

    def total_steps(self, steps_an_epoch: int) -> int:
        steps = self.epochs * steps_an_epoch
        return min(steps, self.max_steps) if self.max_steps else steps

    def learning_rate_at(self, step: int, total: int) -> float:
        """Give the learning rate of a step, 1 to `total`: a linear rise, then half a cosine."""
        rise = min(math.ceil(self.warmup * total), total - 1)
        if step <= rise:
            return self.learning_rate * step / (rise + 1)
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - 1 - rise) / (total - rise)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _wrong_types(config: TrainingConfig) -> Iterator[str]:
    for name, wanted in get_type_hints(TrainingConfig).items():
        value = getattr(config, name)
        if get_origin(wanted) is Literal:
            if value not in get_args(wanted):
                yield f"“{name}” must be one of {', '.join(get_args(wanted))}, not {value!r}."
        elif get_origin(wanted) is tuple:
            if not isinstance(value, tuple) or not all(isinstance(part, str) for part in value):
                yield f"“{name}” must be a list of names."
        elif not _is(value, wanted):
            kind = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
            yield f"“{name}” must be {kind[wanted]}, not {value!r}."


def _is(value: object, wanted: type) -> bool:
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is wanted


def _out_of_range(config: TrainingConfig) -> Iterator[str]:
    for each in fields(config):
        value = getattr(config, each.name)
        if "low" not in each.metadata or not _is(value, float):
            continue
        low, high, unit = (each.metadata[key] for key in ("low", "high", "unit"))
        below = value <= low if each.metadata["above"] else value < low
        if below or not value <= high:
            words = "above" if each.metadata["above"] else "at least"
            yield (
                f"“{each.name}” must be {words} {low:,g} and at most {high:,g}"
                f"{' ' + unit if unit else ''}, not {value:,g}."
            )


def _contradictions(config: TrainingConfig) -> Iterator[str]:
    if not config.base_model:
        yield "“base_model” must name a folder or a model of the hub."
    if not config.slug or set(config.slug) - set("abcdefghijklmnopqrstuvwxyz0123456789-"):
        yield "“slug” may have small letters, digits and hyphens only: it is part of a file name."
    if config.adapter == "lora":
        if not config.target_modules:
            yield "“target_modules” names no layer, so nothing would learn."
        if unknown := set(config.target_modules) & {"lm_head", "embed_tokens"}:
            yield f"{' and '.join(sorted(unknown))} cannot be trained: no server loads that."
        return
    kind = "Prompt tuning" if config.adapter == "prompt" else "Prefix tuning"
    if config.packing:
        yield f"{kind} cannot be packed: it puts its tokens before every row. Set packing to false."
    if config.use_dora or config.use_rslora:
        yield f"{kind} has no rank: use_dora and use_rslora belong to LoRA."
    if config.adapter == "prefix" and config.gradient_checkpointing:
        yield "Prefix tuning cannot recompute activations. Set gradient_checkpointing to false."
