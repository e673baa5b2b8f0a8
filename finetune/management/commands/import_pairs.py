"""Bring the pairs of a file into a data set, with progress and every bad row named."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.files import File
from django.core.management.base import BaseCommand, CommandError

from finetune import importing
from finetune.formats import FIELDS
from finetune.management import people, waiting
from finetune.models import PairImport
from kb.models.documents import UploadRefused
from workers import tasks

SHOWN_PROBLEMS = 20


class Command(BaseCommand):
    help = "Bring the pairs of a JSON, JSON lines, CSV or Parquet file in as suggestions."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--collection", required=True, help="the collection's name")
        parser.add_argument("--dataset", required=True, help="its name; made when missing")
        parser.add_argument("--user", help="who imports; the first administrator unless named")
        parser.add_argument("--format", choices=PairImport.Format.values, help="seen from the file")
        parser.add_argument(
            "--map",
            action="append",
            default=[],
            metavar="FIELD=COLUMN",
            help=f"map a column by hand; fields: {', '.join(FIELDS)}",
        )
        parser.add_argument("--problems", type=Path, help="write the rows left out to this file")
        parser.add_argument("--dry-run", action="store_true", help="only look at the file")
        parser.add_argument("--no-wait", action="store_true", help="return once it is queued")

    def handle(self, *args: Any, **options: Any) -> None:
        user = people.person(options["user"])
        dataset = people.dataset(user, options["collection"], options["dataset"], make=True)
        path: Path = options["file"]
        try:
            with path.open("rb") as handle:
                made, is_new = importing.add_file(dataset, File(handle), name=path.name, user=user)
        except (OSError, UploadRefused) as error:
            raise CommandError(str(error)) from error
        if not is_new and made.job is not None:
            self.stdout.write("The data set has this very file already; nothing was changed.")
            return
        self._set(made, options["format"], options["map"])
        if options["dry_run"]:
            self._look(made)
            return
        importing.start(made, user)
        tasks.hint_workers()
        if not options["no_wait"]:
            self._wait(made, options["problems"])

    def _set(self, made: PairImport, format_: str | None, mapped: list[str]) -> None:
        mapping = dict(pair.partition("=")[::2] for pair in mapped)
        if unknown := sorted(set(mapping) - set(FIELDS)):
            raise CommandError(f"There is no field called {unknown[0]}: {', '.join(FIELDS)}.")
        if mapping:
            made.format, made.mapping = PairImport.Format.COLUMNS, mapping
        if format_:
            made.format = format_
        made.save(update_fields=["format", "mapping"])

    def _look(self, made: PairImport) -> None:
        found = importing.preview(made)
        more = "" if found.is_whole else ", and there are more"
        self.stdout.write(
            f"{made.get_format_display()}, {made.get_container_display()};"
            f" rows: {found.row_count:,}{more}; pairs: {found.pair_count:,}"
        )
        for number, reason in found.problems:
            self.stdout.write(f"row {number}: {reason}")

    def _wait(self, made: PairImport, problems: Path | None) -> None:
        assert made.job is not None
        waiting.wait(made.job, self.stdout.write, lambda job: f"{job.percent} % read")
        job = made.job
        made.refresh_from_db()
        self.stdout.write(f"pairs in: {made.imported_count:,}")
        self.stdout.write(f"rows left out: {made.problem_count:,}")
        for problem in made.problems.order_by("row_number")[:SHOWN_PROBLEMS]:
            self.stdout.write(f"row {problem.row_number}: {problem.reason}")
        if problems:
            with problems.open("wb") as target:
                target.writelines(importing.problem_lines(made))
        waiting.insist(job)
