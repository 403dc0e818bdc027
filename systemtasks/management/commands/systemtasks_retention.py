"""Delete what has expired, as the workers and beat do by themselves, or say what they would."""

from collections import defaultdict

from celery import current_app
from django.core.management.base import BaseCommand, CommandParser

from systemtasks.capture.celery.schedule import known_tasks
from systemtasks.storage import folding, partitions, retention
from systemtasks.storage.retention import Protected


class Command(BaseCommand):
    help = "Delete the runs and tasks that have expired, and make the partitions of the next days."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would be deleted, and delete nothing"
        )

    def handle(self, *_: object, dry_run: bool, **__: object) -> None:
        current_app.loader.import_default_modules()
        kept = known_tasks(current_app)
        for day in () if dry_run else partitions.make_ahead():
            self.stdout.write(f"{day}: a partition is made")
        if not dry_run:
            folding.fold_all()  # what is not counted yet is not deleted
        # Hours that would be counted first are taken as counted, though nothing is counted now.
        folded = folding.foldable_until() if dry_run else None
        plan = partitions.plan_days(folded)
        for old in plan.to_drop:
            self.stdout.write(
                f"{old.day}: {old.runs - old.outliving} runs are dropped with their partition, "
                f"{old.outliving} are kept longer"
            )
            if not dry_run:
                partitions.drop(old.day)
        for old in plan.to_wait:
            self.stdout.write(
                f"{old.day}: {old.outliving} of {old.runs} runs are kept longer, which are too "
                "many to move; the partition stays"
            )
        left_alone = partitions.is_of(plan.left_alone)
        staying = {*plan.left_alone} - {old.day for old in plan.to_drop}
        gone = retention.expired(kept, partitions.is_of(staying), folded=folded)[0]
        for rows in retention.expired(kept, left_alone, gone=gone, folded=folded):
            self.stdout.write(f"{rows.count()} {rows.model._meta.verbose_name}s are deleted")
        self._delete_statistics(dry_run=dry_run)
        if dry_run:
            self.stdout.write("Nothing was changed.")
            return
        protected: Protected = defaultdict(set)
        while retention.delete_expired(kept, protected, left_alone):
            pass

    def _delete_statistics(self, *, dry_run: bool) -> None:
        for period, statistics in folding.expired_statistics().items():
            if number := statistics.count():
                self.stdout.write(f"{number} rows of statistics of each {period} are deleted")
        while not dry_run and folding.delete_expired_statistics():
            pass
