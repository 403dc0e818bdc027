"""Write a made history of a shop's tasks, for a look around in the admin and the API."""

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from systemtasks.conf import conf
from systemtasks.demo_history.making import LEAST, RUNS, History
from systemtasks.demo_history.writing import write
from systemtasks.models import TaskRun


class Command(BaseCommand):
    help = (
        "Write a made history of 60 tasks and 20,000 runs of the past 29 days. Some of its tasks "
        "fail, one is overdue, a worker is silent and a queue is stuck. The database must have no "
        "runs."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--seed", type=int, default=1, help="another number, another history")
        parser.add_argument("--runs", type=int, default=RUNS, help=f"{LEAST} or more")
        parser.add_argument(
            "--add", action="store_true", help="write it into a database that has runs already"
        )

    def handle(self, *_: Any, seed: int, runs: int, add: bool, **__: Any) -> None:  # noqa: ANN401
        if runs < LEAST:
            raise CommandError(f"The history has at least {LEAST} runs.")
        if not add and TaskRun.objects.using(conf().DATABASE).exists():
            raise CommandError(
                "This database has runs already, and a made history would be among them. "
                "Nothing is written. With --add, it is written all the same."
            )
        history = History(datetime.now(UTC), runs=runs, seed=seed)
        write(history)
        self.stdout.write(
            f"{len(history.tasks)} tasks, {len(history.runs):,} runs and {len(history.entries)} "
            "entries of the schedule are written."
        )
