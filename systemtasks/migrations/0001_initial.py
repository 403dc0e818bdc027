import django.contrib.postgres.indexes
import django.db.models.deletion
import django.db.models.functions.comparison
import django.db.models.functions.text
from django.db import migrations, models

from systemtasks.postgres import TrigramSearch


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        # Trusted since Postgres 13: the database's owner may create it.
        TrigramSearch(),
        migrations.CreateModel(
            name="SystemTask",
            fields=[
                ("uuid", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("name", models.CharField(help_text="The Celery task's name", max_length=255)),
                (
                    "uid",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="Tells instances of one task apart",
                        max_length=255,
                    ),
                ),
                ("description", models.TextField(blank=True, default="")),
                (
                    "start_timestamp",
                    models.DateTimeField(help_text="Start of the last run", verbose_name="started"),
                ),
                (
                    "finish_timestamp",
                    models.DateTimeField(help_text="End of the last run", verbose_name="finished"),
                ),
                ("duration", models.FloatField(help_text="Seconds that the last run took")),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("unknown", "Unknown"),
                            ("successful", "Successful"),
                            ("warning", "Warning"),
                            ("error", "Error"),
                        ],
                        default="unknown",
                        max_length=10,
                    ),
                ),
                (
                    "messages",
                    models.JSONField(
                        blank=True, default=list, help_text="What the last run logged, oldest first"
                    ),
                ),
                (
                    "expires",
                    models.DateTimeField(
                        blank=True,
                        help_text="When the row may be deleted; never, where empty",
                        null=True,
                    ),
                ),
            ],
            options={
                "verbose_name": "System Task",
                "verbose_name_plural": "System Tasks",
                "required_db_vendor": "postgresql",
                "ordering": ("-start_timestamp", "uuid"),
                "permissions": (("run_systemtask", "Can run System Task"),),
                "indexes": [
                    models.Index(fields=["start_timestamp", "uuid"], name="systemtask_start"),
                    models.Index(
                        fields=["status", "start_timestamp"], name="systemtask_status_start"
                    ),
                    models.Index(
                        condition=models.Q(("expires__isnull", False)),
                        fields=["expires"],
                        name="systemtask_expires",
                    ),
                    django.contrib.postgres.indexes.GinIndex(
                        django.contrib.postgres.indexes.OpClass(
                            django.db.models.functions.text.Upper(
                                django.db.models.functions.text.Concat(
                                    models.F("name"),
                                    models.Value("\n"),
                                    models.F("uid"),
                                    models.Value("\n"),
                                    models.F("description"),
                                    models.Value("\n"),
                                    django.db.models.functions.comparison.Cast(
                                        "messages", models.TextField()
                                    ),
                                    output_field=models.TextField(),
                                )
                            ),
                            name="gin_trgm_ops",
                        ),
                        name="systemtask_search",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("name", "uid"), name="systemtask_name_uid"),
                    models.CheckConstraint(
                        condition=models.Q(("name", ""), _negated=True), name="systemtask_has_name"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("status__in", ["unknown", "successful", "warning", "error"])
                        ),
                        name="systemtask_status_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("finish_timestamp__gte", models.F("start_timestamp"))),
                        name="systemtask_finish_not_before_start",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("duration__gte", 0), ("duration__lt", float("inf"))),
                        name="systemtask_duration",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="TaskRun",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "celery_id",
                    models.CharField(
                        db_collation="C",
                        help_text="What .delay() returned",
                        max_length=255,
                        verbose_name="Celery id",
                    ),
                ),
                (
                    "attempt",
                    models.PositiveIntegerField(
                        help_text="1 for the first try, 2 for the first retry"
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("queued", "Queued"),
                            ("running", "Running"),
                            ("success", "Success"),
                            ("failure", "Failure"),
                            ("retry", "Retry"),
                            ("revoked", "Revoked"),
                            ("rejected", "Rejected"),
                            ("ignored", "Ignored"),
                        ],
                        max_length=10,
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("unknown", "Unknown"),
                            ("successful", "Successful"),
                            ("warning", "Warning"),
                            ("error", "Error"),
                        ],
                        default="unknown",
                        max_length=10,
                    ),
                ),
                ("queue", models.CharField(blank=True, default="", max_length=255)),
                ("worker", models.CharField(blank=True, default="", max_length=255)),
                (
                    "sent_timestamp",
                    models.DateTimeField(blank=True, null=True, verbose_name="sent"),
                ),
                (
                    "start_timestamp",
                    models.DateTimeField(blank=True, null=True, verbose_name="started"),
                ),
                (
                    "finish_timestamp",
                    models.DateTimeField(blank=True, null=True, verbose_name="finished"),
                ),
                (
                    "wait",
                    models.FloatField(
                        blank=True,
                        help_text="Seconds between when it was due and its start",
                        null=True,
                    ),
                ),
                (
                    "duration",
                    models.FloatField(blank=True, help_text="Seconds that it took", null=True),
                ),
                ("args", models.JSONField(blank=True, null=True)),
                ("kwargs", models.JSONField(blank=True, null=True)),
                (
                    "arguments_intact",
                    models.BooleanField(
                        default=False,
                        help_text="Whether args and kwargs are the very ones: nothing masked, cut or described",
                    ),
                ),
                (
                    "exception",
                    models.TextField(blank=True, default="", help_text="Type and message"),
                ),
                (
                    "messages",
                    models.JSONField(
                        blank=True, default=list, help_text="What this attempt logged, oldest first"
                    ),
                ),
                (
                    "expires",
                    models.DateTimeField(
                        blank=True,
                        help_text="When the row may be deleted; never, where empty",
                        null=True,
                    ),
                ),
                (
                    "system_task",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="runs",
                        to="systemtasks.systemtask",
                    ),
                ),
            ],
            options={
                "verbose_name": "task run",
                "verbose_name_plural": "task runs",
                "required_db_vendor": "postgresql",
                "ordering": ("-start_timestamp", "-id"),
                "indexes": [
                    models.Index(
                        fields=["system_task", "-start_timestamp", "-id"], name="taskrun_task"
                    ),
                    models.Index(fields=["-start_timestamp", "-id"], name="taskrun_start"),
                    models.Index(fields=["status", "-start_timestamp"], name="taskrun_status"),
                    models.Index(fields=["queue", "-start_timestamp"], name="taskrun_queue"),
                    models.Index(fields=["worker", "-start_timestamp"], name="taskrun_worker"),
                    models.Index(
                        condition=models.Q(("expires__isnull", False)),
                        fields=["expires"],
                        name="taskrun_expires",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("celery_id", "attempt"), name="taskrun_celery_attempt"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("attempt__gte", 1)), name="taskrun_attempt"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "state__in",
                                [
                                    "queued",
                                    "running",
                                    "success",
                                    "failure",
                                    "retry",
                                    "revoked",
                                    "rejected",
                                    "ignored",
                                ],
                            )
                        ),
                        name="taskrun_state_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("status__in", ["unknown", "successful", "warning", "error"])
                        ),
                        name="taskrun_status_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("state__in", ["queued", "running"]),
                            ("finish_timestamp__isnull", False),
                            _connector="OR",
                        ),
                        name="taskrun_finished_has_finish",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("start_timestamp__isnull", True),
                            ("finish_timestamp__isnull", True),
                            ("finish_timestamp__gte", models.F("start_timestamp")),
                            _connector="OR",
                        ),
                        name="taskrun_finish_not_before_start",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("duration__isnull", True),
                            models.Q(("duration__gte", 0), ("duration__lt", float("inf"))),
                            _connector="OR",
                        ),
                        name="taskrun_duration",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("wait__isnull", True),
                            models.Q(("wait__gte", 0), ("wait__lt", float("inf"))),
                            _connector="OR",
                        ),
                        name="taskrun_wait",
                    ),
                ],
            },
        ),
    ]
