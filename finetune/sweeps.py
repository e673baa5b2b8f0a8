"""Several runs on one snapshot that differ in a few settings, planned together and compared."""

import secrets
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from django.db import transaction

from finetune import training
from finetune.hyperparameters import InvalidConfig, TrainingConfig
from finetune.models import DatasetSnapshot, TrainingRun
from kb.models import User

MOST_RUNS = 12
NAME_LENGTH = 120


def plan(
    snapshot: DatasetSnapshot, user: User | None, *, name: str, configs: Sequence[TrainingConfig]
) -> list[TrainingRun]:
    """Plan a run for each of the settings, all or none. Raises RunRefused.

    More than one are a sweep; each is then named after what is its own.
    """
    if not 1 <= len(configs) <= MOST_RUNS:
        raise training.RunRefused(f"Plan 1 to {MOST_RUNS} runs at once.")
    key = secrets.token_hex(8) if len(configs) > 1 else ""
    with transaction.atomic():
        return [
            training.plan(snapshot, user, name=named[:NAME_LENGTH], config=config, sweep=key)
            for named, config in zip(_names(name, configs), configs, strict=True)
        ]


def _names(name: str, configs: Sequence[TrainingConfig]) -> list[str]:
    told = [config.to_dict() for config in configs]
    differing = [key for key in told[0] if any(each[key] != told[0][key] for each in told)]
    return [" · ".join([name, *(f"{key} {each[key]}" for key in differing)]) for each in told]


def grid(config: Mapping[str, Any], tried: Mapping[str, Sequence[Any]]) -> list[TrainingConfig]:
    """Combine the settings with each of the values to try. Raises InvalidConfig."""
    ways = [dict(zip(tried, values, strict=True)) for values in product(*tried.values())]
    if len(ways) > MOST_RUNS:
        raise InvalidConfig(
            [f"That makes {len(ways)} runs; at most {MOST_RUNS} are planned at once."]
        )
    return [TrainingConfig.from_dict({**config, **way}) for way in ways]
