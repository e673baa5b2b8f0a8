"""What training cost: time of the devices, energy, money; by run and by month."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, QuerySet, Sum
from django.db.models.functions import Coalesce, TruncMonth

from finetune.models import TrainingRun
from kb.models import User


@dataclass(frozen=True, slots=True)
class Sums:
    """Of a month, of a run since its start, or of all runs where `month` is None. `cost`: in the currency of the settings."""

    month: datetime | None
    runs: int
    gpu_seconds: float
    energy_wh: float
    cost: float

    @property
    def gpu_hours(self) -> float:
        return self.gpu_seconds / 3600

    @property
    def energy_kwh(self) -> float:
        return self.energy_wh / 1000


_SUMS = {
    "runs": Count("pk"),
    "gpu_seconds": Coalesce(Sum("gpu_seconds"), 0.0),
    "energy_wh": Coalesce(Sum("energy_wh"), 0.0),
    "cost": Coalesce(Sum("cost"), 0.0),
}


def runs_of(user: User) -> QuerySet[TrainingRun]:
    """Runs that the person may see and that used a device."""
    return TrainingRun.objects.visible_to(user).filter(started_at__isnull=False)


def months(runs: QuerySet[TrainingRun]) -> list[Sums]:
    """Sum by the month in which a run started, the newest first."""
    by_month = runs.order_by().annotate(month=TruncMonth("started_at")).values("month")
    rows: Any = by_month.annotate(**_SUMS).order_by("-month")
    return [Sums(**row) for row in rows]


def total(runs: QuerySet[TrainingRun]) -> Sums:
    sums: dict[str, Any] = runs.aggregate(**_SUMS)
    return Sums(month=None, **sums)


def of_run(run: TrainingRun) -> Sums:
    return Sums(run.started_at, 1, run.gpu_seconds, run.energy_wh, run.cost)
