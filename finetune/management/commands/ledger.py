"""What training cost."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from finetune import ledger
from finetune.management import people


class Command(BaseCommand):
    help = "Print device hours, energy and cost of the runs that a person may see, by month."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--runs", action="store_true", help="each run, too")
        parser.add_argument("--user", help="whose; the first administrator's unless named")

    def handle(self, *args: Any, **options: Any) -> None:
        runs = ledger.runs_of(people.person(options["user"]))
        self.stdout.write("month    runs      hours        kWh       cost")
        if options["runs"]:
            for run in runs.order_by("-started_at"):
                self.stdout.write(f"{_line(ledger.of_run(run))}  {run.name}")
        for sums in (*ledger.months(runs), ledger.total(runs)):
            self.stdout.write(_line(sums))


def _line(sums: ledger.Sums) -> str:
    month = f"{sums.month:%Y-%m}" if sums.month else "all"
    return (
        f"{month:7}  {sums.runs:4}  {sums.gpu_hours:9,.2f}  {sums.energy_kwh:9,.2f}"
        f"  {sums.cost:9,.2f}"
    )
