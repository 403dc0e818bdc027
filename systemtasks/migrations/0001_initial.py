import django.contrib.postgres.indexes
import django.db.models.deletion
import django.db.models.functions.text
from django.db import migrations, models

import systemtasks.ids
from systemtasks.postgres import CreatePartitionedModel, RunPostgresSQL, TrigramSearch

# What people search for: no keys of the JSON, no log levels, no names of loggers. The cost is
# what it takes to unpack long messages, which the planner would not know: with it, a search that
# finds few rows uses the index.
CREATE_SEARCH_DOCUMENT = """
CREATE FUNCTION systemtasks_search_document(name text, uid text, description text, messages jsonb)
RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000 AS $$
    SELECT upper(name || E'\\n' || uid || E'\\n' || description || E'\\n' || coalesce((
        SELECT string_agg(found #>> '{}', E'\\n') FROM jsonb_path_query(
            messages, '$[*].attributes.**?(@.type() == "string" || @.type() == "number")'
        ) AS found
    ), '') || E'\\n' || coalesce((
        SELECT string_agg(found #>> '{}', E'\\n')
        FROM jsonb_path_query(messages, '$[*].event') AS found
    ), ''))
$$
"""
DROP_SEARCH_DOCUMENT = "DROP FUNCTION systemtasks_search_document(text, text, text, jsonb)"

# Each statement notes the tasks that it has written: a row is added, and nothing is looked up or
# waited for. systemtasks/storage/search.py takes the notes.
NOTE_CHANGES = """
CREATE FUNCTION systemtasks_note_changed_tasks() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN
    INSERT INTO systemtasks_searchchange (uuid) SELECT uuid FROM changed;
    RETURN NULL;
END$$;
CREATE FUNCTION systemtasks_forget_deleted_tasks() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN
    DELETE FROM systemtasks_searchtext WHERE uuid IN (SELECT uuid FROM deleted);
    RETURN NULL;
END$$;
CREATE TRIGGER systemtasks_inserted AFTER INSERT ON systemtasks_systemtask
REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION systemtasks_note_changed_tasks();
CREATE TRIGGER systemtasks_updated AFTER UPDATE ON systemtasks_systemtask
REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION systemtasks_note_changed_tasks();
CREATE TRIGGER systemtasks_deleted AFTER DELETE ON systemtasks_systemtask
REFERENCING OLD TABLE AS deleted
FOR EACH STATEMENT EXECUTE FUNCTION systemtasks_forget_deleted_tasks();
"""
NOTE_NO_CHANGES = """
DROP TRIGGER systemtasks_inserted ON systemtasks_systemtask;
DROP TRIGGER systemtasks_updated ON systemtasks_systemtask;
DROP TRIGGER systemtasks_deleted ON systemtasks_systemtask;
DROP FUNCTION systemtasks_note_changed_tasks();
DROP FUNCTION systemtasks_forget_deleted_tasks();
"""

# Once a statement and without a payload: a batch of any size costs one notification, and whoever
# waits looks for itself. `UPDATE OF state` leaves out the renewal of leases.
NOTIFY = """
CREATE FUNCTION systemtasks_notify() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN NOTIFY systemtasks_taskrun; RETURN NULL; END$$;
CREATE TRIGGER systemtasks_notify AFTER INSERT OR UPDATE OF state ON systemtasks_taskrun
FOR EACH STATEMENT EXECUTE FUNCTION systemtasks_notify();
"""
QUIET = """
DROP TRIGGER systemtasks_notify ON systemtasks_taskrun;
DROP FUNCTION systemtasks_notify();
"""


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        # Trusted since Postgres 13: the database's owner may create it.
        TrigramSearch(),
        RunPostgresSQL(CREATE_SEARCH_DOCUMENT, DROP_SEARCH_DOCUMENT),
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
                (
                    "execution",
                    models.UUIDField(
                        editable=False, help_text="The `execution` of the last run", null=True
                    ),
                ),
                (
                    "sort_timestamp",
                    models.DateTimeField(
                        editable=False,
                        help_text="Start of the last run by the database's clock; empty if none has ended",
                        null=True,
                    ),
                ),
            ],
            options={
                "verbose_name": "System Task",
                "verbose_name_plural": "System Tasks",
                "ordering": ("-start_timestamp", "uuid"),
                "permissions": (("run_systemtask", "Can run System Task"),),
                "required_db_vendor": "postgresql",
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
        CreatePartitionedModel(
            name="TaskRun",
            fields=[
                # The longest alignment first: so no byte is lost between two columns. Postgres reads
                # a row up to the last column that a query asks for, so the long ones are at the end.
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
                    "sort_timestamp",
                    models.DateTimeField(
                        blank=True,
                        editable=False,
                        help_text="Its start by the database's clock",
                        null=True,
                    ),
                ),
                (
                    "eta_timestamp",
                    models.DateTimeField(
                        blank=True,
                        help_text="When it was to start at the earliest",
                        null=True,
                        verbose_name="due",
                    ),
                ),
                (
                    "seen_timestamp",
                    models.DateTimeField(
                        blank=True,
                        help_text="Of the worker, while it runs",
                        null=True,
                        verbose_name="last sign of life",
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
                (
                    "attempt",
                    models.PositiveIntegerField(
                        help_text="1 for the first try, 2 for the first retry"
                    ),
                ),
                (
                    "number",
                    models.PositiveIntegerField(
                        db_default=1,
                        default=1,
                        help_text="1 for the first execution of its message",
                    ),
                ),
                (
                    "executions",
                    models.PositiveIntegerField(
                        db_default=1,
                        default=1,
                        editable=False,
                        help_text="How many executions the message has had",
                    ),
                ),
                (
                    "id",
                    models.UUIDField(
                        default=systemtasks.ids.new_uuid,
                        editable=False,
                        primary_key=True,
                        serialize=False,
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
                (
                    "execution",
                    models.UUIDField(
                        blank=True,
                        editable=False,
                        help_text="The one execution of its message that has this row; empty while it is queued",
                        null=True,
                    ),
                ),
                (
                    "message",
                    models.UUIDField(
                        blank=True,
                        editable=False,
                        help_text="The id of the first execution of its message, if this is a further one",
                        null=True,
                    ),
                ),
                (
                    "replaces",
                    models.UUIDField(
                        blank=True,
                        help_text="The run that had `self.replace` send this one",
                        null=True,
                    ),
                ),
                (
                    "replaced_by",
                    models.UUIDField(
                        blank=True,
                        help_text="The run that this one had `self.replace` send",
                        null=True,
                    ),
                ),
                (
                    "parent_run",
                    models.UUIDField(blank=True, help_text="The run that sent this one", null=True),
                ),
                (
                    "lease",
                    models.UUIDField(
                        blank=True,
                        editable=False,
                        help_text="The worker process that answers for this run until its end is known",
                        null=True,
                    ),
                ),
                (
                    "redelivered",
                    models.BooleanField(
                        db_default=False,
                        default=False,
                        help_text="Whether the broker had delivered the message before",
                    ),
                ),
                (
                    "arguments_intact",
                    models.BooleanField(
                        default=False,
                        help_text="Whether args and kwargs are the very ones: nothing masked, cut or described",
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
                            ("lost", "Lost"),
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
                    "root_id",
                    models.CharField(
                        blank=True,
                        db_collation="C",
                        default="",
                        help_text="Celery id of the run from which it descends; empty if it descends from none",
                        max_length=255,
                        verbose_name="root",
                    ),
                ),
                (
                    "parent_id",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="Celery id of the run that sent it",
                        max_length=255,
                        verbose_name="parent",
                    ),
                ),
                ("queue", models.CharField(blank=True, default="", max_length=255)),
                ("worker", models.CharField(blank=True, default="", max_length=255)),
                (
                    "sender",
                    models.CharField(
                        blank=True, default="", help_text="The process that sent it", max_length=255
                    ),
                ),
                ("args", models.JSONField(blank=True, null=True)),
                ("kwargs", models.JSONField(blank=True, null=True)),
                (
                    "context",
                    models.JSONField(
                        blank=True,
                        default=dict,
                        help_text="What SENDER_CONTEXT said when it was sent",
                    ),
                ),
                (
                    "sent_options",
                    models.JSONField(
                        blank=True,
                        editable=False,
                        help_text="What its message carried besides the arguments; empty if it is unknown",
                        null=True,
                    ),
                ),
                (
                    "exception",
                    models.TextField(blank=True, default="", help_text="Type and message"),
                ),
                (
                    "messages",
                    models.JSONField(
                        blank=True, default=list, help_text="What this run logged, oldest first"
                    ),
                ),
            ],
            options={
                "verbose_name": "task run",
                "verbose_name_plural": "task runs",
                "ordering": ("-sort_timestamp", "-id"),
                "required_db_vendor": "postgresql",
                "indexes": [
                    models.Index(fields=["celery_id"], name="taskrun_celery"),
                    models.Index(
                        fields=["system_task", "-sort_timestamp", "-id"], name="taskrun_task"
                    ),
                    models.Index(fields=["-sort_timestamp", "-id"], name="taskrun_start"),
                    models.Index(
                        condition=models.Q(("state", "success"), _negated=True),
                        fields=["state", "-sort_timestamp", "-id", "queue", "worker"],
                        name="taskrun_state",
                    ),
                    models.Index(
                        condition=models.Q(("status", "successful"), _negated=True),
                        fields=["status", "-sort_timestamp", "-id", "queue", "worker"],
                        name="taskrun_status",
                    ),
                    models.Index(
                        condition=models.Q(("state", "success"), _negated=True),
                        fields=["system_task", "state", "-sort_timestamp", "-id"],
                        name="taskrun_task_state",
                    ),
                    models.Index(
                        condition=models.Q(("duration__gte", 10.0)),
                        fields=["-sort_timestamp", "-id", "duration", "system_task"],
                        name="taskrun_long",
                    ),
                    models.Index(
                        condition=models.Q(("duration__gte", 10.0)),
                        fields=["-duration", "-id", "system_task"],
                        name="taskrun_longest",
                    ),
                    models.Index(fields=["queue", "-sort_timestamp"], name="taskrun_queue"),
                    models.Index(fields=["worker", "-sort_timestamp"], name="taskrun_worker"),
                    models.Index(
                        models.Func(
                            models.F("expires"),
                            output_field=models.DateTimeField(),
                            template="date_bin('1 hour', %(expressions)s, '2000-01-01 00:00Z')",
                        ),
                        condition=models.Q(("expires__isnull", False)),
                        name="taskrun_expires",
                    ),
                    models.Index(
                        condition=models.Q(("parent_id", ""), _negated=True),
                        fields=["parent_id"],
                        name="taskrun_parent",
                    ),
                    models.Index(
                        condition=models.Q(("root_id", ""), _negated=True),
                        fields=["root_id"],
                        name="taskrun_root",
                    ),
                    django.contrib.postgres.indexes.GinIndex(
                        django.contrib.postgres.indexes.OpClass(
                            django.db.models.functions.text.Upper("exception"),
                            name="gin_trgm_ops",
                        ),
                        condition=models.Q(("exception", ""), _negated=True),
                        name="taskrun_exception",
                    ),
                    models.Index(
                        condition=models.Q(("lease__isnull", False)),
                        fields=["lease"],
                        name="taskrun_lease",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("attempt__gte", 1)), name="taskrun_attempt"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("number__gte", 1)), name="taskrun_number"
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
                                    "lost",
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
        migrations.CreateModel(
            name="SearchChange",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("uuid", models.UUIDField(help_text="Of the task")),
            ],
            options={
                "required_db_vendor": "postgresql",
            },
        ),
        migrations.CreateModel(
            name="SearchText",
            fields=[
                (
                    "uuid",
                    models.UUIDField(
                        editable=False,
                        help_text="Of the task",
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "document",
                    models.TextField(help_text="In upper case: see `search_document`"),
                ),
            ],
            options={
                "required_db_vendor": "postgresql",
                "indexes": [
                    django.contrib.postgres.indexes.GinIndex(
                        django.contrib.postgres.indexes.OpClass("document", name="gin_trgm_ops"),
                        name="searchtext_document",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="ScheduleEntry",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "app",
                    models.CharField(
                        blank=True, help_text="The name of its Celery app", max_length=255
                    ),
                ),
                (
                    "entry",
                    models.CharField(help_text="The entry's name in the schedule", max_length=255),
                ),
                ("task", models.CharField(help_text="The Celery task's name", max_length=255)),
                ("uid", models.CharField(blank=True, default="", max_length=255)),
                (
                    "words",
                    models.CharField(
                        blank=True, default="", max_length=255, verbose_name="schedule"
                    ),
                ),
                (
                    "next_due",
                    models.DateTimeField(
                        blank=True,
                        help_text="When beat sends it next; never, where empty",
                        null=True,
                    ),
                ),
                ("last_sent", models.DateTimeField(blank=True, null=True)),
                ("enabled", models.BooleanField(default=True, verbose_name="enabled")),
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
                    "sent_options",
                    models.JSONField(
                        blank=True,
                        editable=False,
                        help_text="What its messages carry besides the arguments; empty if it is unknown",
                        null=True,
                    ),
                ),
                (
                    "seen_timestamp",
                    models.DateTimeField(
                        blank=True,
                        editable=False,
                        help_text="Of a beat that has the entry",
                        null=True,
                        verbose_name="last sign of life",
                    ),
                ),
            ],
            options={
                "verbose_name": "schedule entry",
                "verbose_name_plural": "schedule",
                "ordering": ("task", "uid", "entry"),
                "required_db_vendor": "postgresql",
                "indexes": [models.Index(fields=["task", "uid"], name="scheduleentry_task")],
                "constraints": [
                    models.UniqueConstraint(fields=("app", "entry"), name="scheduleentry_app_entry")
                ],
            },
        ),
        RunPostgresSQL(NOTIFY, QUIET),
        RunPostgresSQL(NOTE_CHANGES, NOTE_NO_CHANGES),
    ]
