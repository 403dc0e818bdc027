"""The tables.

SystemTask has the outcome of a task's last run, TaskRun has every run, and ScheduleEntry has the
schedule of beat. The search of tasks reads SearchText and SearchChange. TaskStatistics has what is
kept of the runs for longer than they are.
"""

from collections.abc import Iterable
from typing import Any, Self

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.db import models
from django.db.models import F, Func, Q, Value
from django.db.models.functions import Upper
from django.utils.translation import pgettext_lazy

from systemtasks.fields import UTCDateTimeField
from systemtasks.ids import full_name, new_uuid
from systemtasks.states import UNFINISHED, State, Status


def search_document() -> Func:
    """Return an expression for the text of a SystemTask that is searched, in upper case.

    It contains the events of the messages and the values of their attributes; see the migration.
    """
    columns = (*SYSTEM_TASK_SEARCH, "messages")
    function = "systemtasks_search_document"
    return Func(*map(F, columns), function=function, output_field=models.TextField())


def hour_of(column: str) -> Func:
    """Return an expression for the hour, in UTC, of a time."""
    template = "date_bin('1 hour', %(expressions)s, '2000-01-01 00:00Z')"
    return Func(F(column), template=template, output_field=models.DateTimeField())


SYSTEM_TASK_SEARCH = ("name", "uid", "description")
FOUND_LIMIT = 1_000
"""The tasks that a search finds, of which a query has the uuids. Of more, it has a condition."""
PENDING_LIMIT = 1_000
"""The tasks that a search reads themselves, because their SearchText is not up to date."""


NEWEST_RUN_FIRST = ("-sort_timestamp", "-id")
"""The order of runs. Runs that have not started come first.

Which run of a task is the last one is decided by one clock, the database's. The hosts' own clocks
may differ by more than the runs do; and in an id there is the time of whoever sent the message. A
sequence would put a run last whose row is written last, such as one of an old journal.
"""

LONG = 10.0
"""Seconds from which a run is a long one. Indexes have the long ones, because they are few."""


class SystemTaskQuerySet(models.QuerySet["SystemTask"]):
    """Queries of tasks that more than one module needs."""

    def containing(self, words: Iterable[str]) -> Self:
        """Return the tasks whose text contains every word, in any case.

        Of tasks that have changed within the last seconds, PENDING_LIMIT are searched as they are
        now, and any others as they were before; if more than FOUND_LIMIT have the words, all as
        they were before. The search is made at once, and the query has the uuids.
        """
        texts = SearchText.objects.using(self.db)
        changed = SearchChange.objects.using(self.db).order_by("-id").values("uuid")[:PENDING_LIMIT]
        tasks = SystemTask.objects.using(self.db).alias(document=search_document())
        tasks = tasks.filter(uuid__in=changed).order_by()
        for word in words:
            # Postgres makes the word upper case, as it has made the document.
            texts = texts.filter(document__contains=Upper(Value(word)))
            tasks = tasks.filter(document__contains=Upper(Value(word)))
        found = [*texts.values_list("uuid", flat=True)[: FOUND_LIMIT + 1]]
        if len(found) > FOUND_LIMIT:
            # As a condition, so that Postgres may look at the tasks in the order of the list, and
            # end with the page.
            return self.filter(uuid__in=texts.values("uuid"))
        pending = {*changed.values_list("uuid", flat=True)}
        now = tasks.values_list("uuid", flat=True) if pending else ()
        return self.filter(uuid__in={*found} - pending | {*now})


class TaskRunQuerySet(models.QuerySet["TaskRun"]):
    """Queries of runs that more than one module needs."""

    def unfinished(self) -> Self:
        """Return the runs that are queued or running."""
        return self.filter(state__in=UNFINISHED)

    def finished(self) -> Self:
        """Return the runs that have ended, however they did."""
        return self.exclude(state__in=UNFINISHED)

    def started(self) -> Self:
        """Return the runs that a worker has begun, finished or not."""
        return self.filter(start_timestamp__isnull=False)

    def with_error(self, words: Iterable[str]) -> Self:
        """Return the runs whose exception contains every word, in any case."""
        runs = self.exclude(exception="")  # as in the condition of the index
        for word in words:
            runs = runs.filter(exception__icontains=word)
        return runs

    def of_root(self, celery_id: str) -> Self:
        """Return the run with this Celery id if it has no root but itself, and its descendants."""
        # Two conditions, of which each has an index.
        return self.filter(Q(root_id=celery_id) | Q(celery_id=celery_id, root_id=""))

    def newest_first(self) -> Self:
        """Return the runs, those that have not started first, then the one that started last."""
        return self.order_by(*NEWEST_RUN_FIRST)


def _one_of(column: str, values: Iterable[str]) -> Q:
    return Q(**{f"{column}__in": list(values)})


def _seconds(column: str) -> Q:
    # Below infinity is not NaN either: Postgres sorts NaN last.
    return Q(**{f"{column}__gte": 0, f"{column}__lt": float("inf")})


class SystemTask(models.Model):
    """The outcome of a task's last run: one row for each (name, uid)."""

    uuid = models.UUIDField(primary_key=True, editable=False)
    name = models.CharField(max_length=255, help_text="The Celery task's name")
    uid = models.CharField(
        max_length=255,
        blank=True,
        default="",
        help_text="Tells instances of one task apart",
    )
    description = models.TextField(blank=True, default="")
    start_timestamp = UTCDateTimeField("started", help_text="Start of the last run")
    finish_timestamp = UTCDateTimeField("finished", help_text="End of the last run")
    duration = models.FloatField(help_text="Seconds that the last run took")
    status = models.CharField(max_length=10, choices=Status, default=Status.UNKNOWN)
    messages: "models.JSONField[Any, list[dict[str, Any]]]" = models.JSONField(
        default=list, blank=True, help_text="What the last run logged, oldest first"
    )
    expires = UTCDateTimeField(
        null=True, blank=True, help_text="When the row may be deleted; never, where empty"
    )
    execution = models.UUIDField(
        null=True, editable=False, help_text="The `execution` of the last run"
    )
    sort_timestamp = UTCDateTimeField(
        null=True,
        editable=False,
        help_text="Start of the last run by the database's clock; empty if none has ended",
    )

    objects = SystemTaskQuerySet.as_manager()

    class Meta:
        verbose_name = pgettext_lazy("systemtasks", "System Task")
        verbose_name_plural = pgettext_lazy("systemtasks", "System Tasks")
        required_db_vendor = "postgresql"
        ordering = ("-start_timestamp", "uuid")
        permissions = (("run_systemtask", "Can run System Task"),)
        constraints = (
            models.UniqueConstraint(fields=("name", "uid"), name="systemtask_name_uid"),
            models.CheckConstraint(condition=~Q(name=""), name="systemtask_has_name"),
            models.CheckConstraint(
                condition=_one_of("status", Status.values), name="systemtask_status_known"
            ),
            models.CheckConstraint(
                condition=Q(finish_timestamp__gte=F("start_timestamp")),
                name="systemtask_finish_not_before_start",
            ),
            models.CheckConstraint(condition=_seconds("duration"), name="systemtask_duration"),
        )
        indexes = (
            models.Index(fields=("start_timestamp", "uuid"), name="systemtask_start"),
            models.Index(fields=("status", "start_timestamp"), name="systemtask_status_start"),
            models.Index(
                fields=("expires",), name="systemtask_expires", condition=Q(expires__isnull=False)
            ),
        )

    def __str__(self) -> str:
        return self.full_name

    @property
    def full_name(self) -> str:
        """Get full name with UID."""
        return full_name(self.name, self.uid)

    @property
    def expiring(self) -> bool:
        """Return True if the row is deleted at some time."""
        return self.expires is not None


class TaskRun(models.Model):
    """One execution of a task, or a message that waits for its first one."""

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    system_task = models.ForeignKey(
        SystemTask, on_delete=models.CASCADE, related_name="runs", db_index=False
    )
    # In this collation its index finds the beginning of an id, too.
    celery_id = models.CharField(
        "Celery id", max_length=255, db_collation="C", help_text="What .delay() returned"
    )
    attempt = models.PositiveIntegerField(help_text="1 for the first try, 2 for the first retry")
    execution = models.UUIDField(
        null=True,
        blank=True,
        editable=False,
        help_text="The one execution of its message that has this row; empty while it is queued",
    )
    message = models.UUIDField(
        null=True,
        blank=True,
        editable=False,
        help_text="The id of the first execution of its message, if this is a further one",
    )
    number = models.PositiveIntegerField(
        default=1, db_default=1, help_text="1 for the first execution of its message"
    )
    executions = models.PositiveIntegerField(
        default=1, db_default=1, editable=False, help_text="How many executions the message has had"
    )
    redelivered = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Whether the broker had delivered the message before",
    )
    replaces = models.UUIDField(
        null=True, blank=True, help_text="The run that had `self.replace` send this one"
    )
    replaced_by = models.UUIDField(
        null=True, blank=True, help_text="The run that this one had `self.replace` send"
    )
    parent_run = models.UUIDField(null=True, blank=True, help_text="The run that sent this one")
    state = models.CharField(max_length=10, choices=State)
    status = models.CharField(max_length=10, choices=Status, default=Status.UNKNOWN)
    queue = models.CharField(max_length=255, blank=True, default="")
    worker = models.CharField(max_length=255, blank=True, default="")
    sent_timestamp = UTCDateTimeField("sent", null=True, blank=True)
    eta_timestamp = UTCDateTimeField(
        "due", null=True, blank=True, help_text="When it was to start at the earliest"
    )
    start_timestamp = UTCDateTimeField("started", null=True, blank=True)
    finish_timestamp = UTCDateTimeField("finished", null=True, blank=True)
    sort_timestamp = UTCDateTimeField(
        null=True, blank=True, editable=False, help_text="Its start by the database's clock"
    )
    wait = models.FloatField(
        null=True, blank=True, help_text="Seconds between when it was due and its start"
    )
    duration = models.FloatField(null=True, blank=True, help_text="Seconds that it took")
    args: "models.JSONField[Any, list[Any] | None]" = models.JSONField(null=True, blank=True)
    kwargs: "models.JSONField[Any, dict[str, Any] | None]" = models.JSONField(null=True, blank=True)
    arguments_intact = models.BooleanField(
        default=False,
        help_text="Whether args and kwargs are the very ones: nothing masked, cut or described",
    )
    exception = models.TextField(blank=True, default="", help_text="Type and message")
    messages: "models.JSONField[Any, list[dict[str, Any]]]" = models.JSONField(
        default=list, blank=True, help_text="What this run logged, oldest first"
    )
    expires = UTCDateTimeField(
        null=True, blank=True, help_text="When the row may be deleted; never, where empty"
    )
    sender = models.CharField(
        max_length=255, blank=True, default="", help_text="The process that sent it"
    )
    parent_id = models.CharField(
        "parent",
        max_length=255,
        blank=True,
        default="",
        help_text="Celery id of the run that sent it",
    )
    # Of the collation of celery_id, with which it is compared.
    root_id = models.CharField(
        "root",
        max_length=255,
        db_collation="C",
        blank=True,
        default="",
        help_text="Celery id of the run from which it descends; empty if it descends from none",
    )
    context: "models.JSONField[Any, dict[str, Any]]" = models.JSONField(
        default=dict,
        blank=True,
        help_text="What SENDER_CONTEXT said when it was sent",
    )
    sent_options: "models.JSONField[Any, dict[str, Any] | None]" = models.JSONField(
        null=True,
        blank=True,
        editable=False,
        help_text="What its message carried besides the arguments; empty if it is unknown",
    )
    lease = models.UUIDField(
        null=True,
        blank=True,
        editable=False,
        help_text="The worker process that answers for this run until its end is known",
    )
    seen_timestamp = UTCDateTimeField(
        "last sign of life", null=True, blank=True, help_text="Of the worker, while it runs"
    )

    objects = TaskRunQuerySet.as_manager()

    class Meta:
        verbose_name = pgettext_lazy("systemtasks", "task run")
        verbose_name_plural = pgettext_lazy("systemtasks", "task runs")
        required_db_vendor = "postgresql"
        ordering = NEWEST_RUN_FIRST
        constraints = (
            models.CheckConstraint(condition=Q(attempt__gte=1), name="taskrun_attempt"),
            models.CheckConstraint(condition=Q(number__gte=1), name="taskrun_number"),
            models.CheckConstraint(
                condition=_one_of("state", State.values), name="taskrun_state_known"
            ),
            models.CheckConstraint(
                condition=_one_of("status", Status.values), name="taskrun_status_known"
            ),
            models.CheckConstraint(
                condition=_one_of("state", UNFINISHED) | Q(finish_timestamp__isnull=False),
                name="taskrun_finished_has_finish",
            ),
            models.CheckConstraint(
                condition=Q(start_timestamp__isnull=True)
                | Q(finish_timestamp__isnull=True)
                | Q(finish_timestamp__gte=F("start_timestamp")),
                name="taskrun_finish_not_before_start",
            ),
            models.CheckConstraint(
                condition=Q(duration__isnull=True) | _seconds("duration"), name="taskrun_duration"
            ),
            models.CheckConstraint(
                condition=Q(wait__isnull=True) | _seconds("wait"), name="taskrun_wait"
            ),
        )
        # Each index costs at every write, so each names the query that needs it.
        # tests/test_indexes.py fails if no query uses one.
        indexes = (
            # `celery_id=`, and the beginning of an id in the search of the admin.
            models.Index(fields=("celery_id",), name="taskrun_celery"),
            # The runs of a task: `system_task=`, `name=`, the page of a task, the last run of one.
            models.Index(fields=("system_task", *NEWEST_RUN_FIRST), name="taskrun_task"),
            # The lists without a filter, spans of time, and what is found soon among all.
            models.Index(fields=NEWEST_RUN_FIRST, name="taskrun_start"),
            # The rare ones: `state=`, `status=`, and both of one task. Most runs are successful, so
            # a page of those is found soon among all. The queue and the worker are there so that
            # runs of others are skipped without reading their rows; not by INCLUDE, of which Django
            # warns a project whose tests use SQLite.
            models.Index(
                fields=("state", *NEWEST_RUN_FIRST, "queue", "worker"),
                name="taskrun_state",
                condition=~Q(state=State.SUCCESS),
            ),
            models.Index(
                fields=("status", *NEWEST_RUN_FIRST, "queue", "worker"),
                name="taskrun_status",
                condition=~Q(status=Status.SUCCESSFUL),
            ),
            models.Index(
                fields=("system_task", "state", *NEWEST_RUN_FIRST),
                name="taskrun_task_state",
                condition=~Q(state=State.SUCCESS),
            ),
            # `min_duration=`, newest first or longest first. The task, and the duration in the
            # first one, are there so that runs of others are skipped without reading their rows.
            models.Index(
                fields=(*NEWEST_RUN_FIRST, "duration", "system_task"),
                name="taskrun_long",
                condition=Q(duration__gte=LONG),
            ),
            models.Index(
                fields=("-duration", "-id", "system_task"),
                name="taskrun_longest",
                condition=Q(duration__gte=LONG),
            ),
            # `queue=` and `worker=`, and the values that the admin offers of them.
            models.Index(fields=("queue", "-sort_timestamp"), name="taskrun_queue"),
            models.Index(fields=("worker", "-sort_timestamp"), name="taskrun_worker"),
            # The housekeeping: runs that expire before their day is dropped, or that outlive it.
            # They may be anywhere among the others, so that BRIN would read all of the table.
            # By the hour: Postgres keeps equal values once, in a third of the space.
            models.Index(
                hour_of("expires"), name="taskrun_expires", condition=Q(expires__isnull=False)
            ),
            # `parent_id=`.
            models.Index(fields=("parent_id",), name="taskrun_parent", condition=~Q(parent_id="")),
            # `root_id=`. The root itself is found by its Celery id: see `of_root`.
            models.Index(
                fields=("root_id",),
                name="taskrun_root",
                condition=~Q(root_id=""),
            ),
            # `search=`: what `icontains` looks for.
            GinIndex(
                OpClass(Upper("exception"), name="gin_trgm_ops"),
                name="taskrun_exception",
                condition=~Q(exception=""),
            ),
            # The writer: the runs of a worker process. Without seen_timestamp, so that to renew a
            # lease touches no index.
            models.Index(fields=("lease",), name="taskrun_lease", condition=Q(lease__isnull=False)),
        )

    def __str__(self) -> str:
        return f"{self.celery_id} (attempt {self.attempt}, execution {self.number})"

    @property
    def root(self) -> str:
        """Return the Celery id of the run from which it descends: its own, if from no other."""
        return self.root_id or self.celery_id

    @property
    def is_finished(self) -> bool:
        """Return True if the run has ended, however it did."""
        return self.state not in UNFINISHED


ACKNOWLEDGEABLE = (Status.ERROR, Status.WARNING)
"""The statuses of ended runs that somebody may have to look at."""
NOTE_LIMIT = 500
"""The characters of a note."""


class Acknowledgement(models.Model):
    """A failed run that somebody looks at.

    It has no foreign key and no trigger, since all that is written would pay for them. Whatever
    deletes expired runs deletes it: see ROWS_OF_RUNS.
    """

    run = models.UUIDField(primary_key=True)
    user = models.CharField(max_length=255, help_text="The name of who looks at it")
    timestamp = UTCDateTimeField()
    note = models.CharField(max_length=NOTE_LIMIT, blank=True, default="")

    class Meta:
        required_db_vendor = "postgresql"
        default_permissions = ()
        permissions = (("acknowledge_taskrun", "Can acknowledge failed task runs"),)
        # The failures that somebody has acknowledged lately, on the home page.
        indexes = (models.Index(fields=("timestamp",), name="acknowledgement_timestamp"),)

    def __str__(self) -> str:
        return f"{self.run}, seen by {self.user}"


class RunAgain(models.Model):
    """A run, or a task, that somebody has run again in the admin.

    The row is made before it is sent, so that a page that is confirmed twice sends it once.
    """

    id = models.BigAutoField(primary_key=True)
    key = models.UUIDField(help_text="Of the page that asked, which sends it once")
    run = models.UUIDField(help_text="The run, or the task if one was selected")
    user = models.CharField(max_length=255)
    timestamp = UTCDateTimeField()
    celery_id = models.CharField(
        max_length=255,
        blank=True,
        default="",
        help_text="Of the new run; empty if it was not sent",
    )
    problem = models.TextField(blank=True, default="")

    class Meta:
        required_db_vendor = "postgresql"
        default_permissions = ()
        constraints = (models.UniqueConstraint(fields=("key", "run"), name="runagain_key_run"),)
        # The earlier times that a run was run again, and the rows that go with a run.
        indexes = (models.Index(fields=("run",), name="runagain_run"),)

    def __str__(self) -> str:
        return f"{self.run}, run again by {self.user}"


ROWS_OF_RUNS = (Acknowledgement, RunAgain)
"""The models with a row for a run, whose column `run` has its id. They go with the run."""


VIEW_NAME_LIMIT, VIEW_QUERY_LIMIT = 80, 2_000


class SavedView(models.Model):
    """The filters and the order of a list in the admin, under a name.

    The user is a name, since the users may be in another database.
    """

    id = models.BigAutoField(primary_key=True)
    model = models.CharField(max_length=50, help_text="The name of the list's model")
    user = models.CharField(max_length=255, help_text="The name of who saved it")
    name = models.CharField(max_length=VIEW_NAME_LIMIT)
    query = models.CharField(max_length=VIEW_QUERY_LIMIT, help_text="Of the list's address")
    shared = models.BooleanField(default=False)

    class Meta:
        required_db_vendor = "postgresql"
        default_permissions = ()
        permissions = (("share_savedview", "Can share saved views"),)
        constraints = (
            models.UniqueConstraint(
                fields=("model", "user", "name"), name="savedview_model_user_name"
            ),
        )

    def __str__(self) -> str:
        return self.name


class SearchText(models.Model):
    """The text of a task that is searched.

    It is apart from SystemTask, because its index costs more than all else that is written when a
    run ends, and the text changes less often. `storage/search.py` keeps it up to date.
    """

    uuid = models.UUIDField(primary_key=True, editable=False, help_text="Of the task")
    document = models.TextField(help_text="In upper case: see `search_document`")

    class Meta:
        required_db_vendor = "postgresql"
        indexes = (GinIndex(OpClass("document", name="gin_trgm_ops"), name="searchtext_document"),)

    def __str__(self) -> str:
        return str(self.uuid)


class SearchChange(models.Model):
    """A task whose text may have changed since its SearchText was written.

    Triggers insert these rows. There may be several of one task.
    """

    id = models.BigAutoField(primary_key=True)
    uuid = models.UUIDField(help_text="Of the task")

    class Meta:
        required_db_vendor = "postgresql"

    def __str__(self) -> str:
        return str(self.uuid)


class ScheduleEntry(models.Model):
    """An entry of beat's schedule, as beat itself keeps it up to date."""

    id = models.BigAutoField(primary_key=True)
    app = models.CharField(max_length=255, blank=True, help_text="The name of its Celery app")
    entry = models.CharField(max_length=255, help_text="The entry's name in the schedule")
    task = models.CharField(max_length=255, help_text="The Celery task's name")
    uid = models.CharField(max_length=255, blank=True, default="")
    words = models.CharField(
        pgettext_lazy("systemtasks", "schedule"), max_length=255, blank=True, default=""
    )
    next_due = UTCDateTimeField(
        null=True, blank=True, help_text="When beat sends it next; never, where empty"
    )
    last_sent = UTCDateTimeField(null=True, blank=True)
    enabled = models.BooleanField(pgettext_lazy("systemtasks", "enabled"), default=True)
    args: "models.JSONField[Any, list[Any] | None]" = models.JSONField(null=True, blank=True)
    kwargs: "models.JSONField[Any, dict[str, Any] | None]" = models.JSONField(null=True, blank=True)
    arguments_intact = models.BooleanField(
        default=False,
        help_text="Whether args and kwargs are the very ones: nothing masked, cut or described",
    )
    sent_options: "models.JSONField[Any, dict[str, Any] | None]" = models.JSONField(
        null=True,
        blank=True,
        editable=False,
        help_text="What its messages carry besides the arguments; empty if it is unknown",
    )
    seen_timestamp = UTCDateTimeField(
        "last sign of life",
        null=True,
        blank=True,
        editable=False,
        help_text="Of a beat that has the entry",
    )

    class Meta:
        verbose_name = pgettext_lazy("systemtasks", "schedule entry")
        verbose_name_plural = pgettext_lazy("systemtasks", "schedule")
        required_db_vendor = "postgresql"
        ordering = ("task", "uid", "entry")
        constraints = (
            models.UniqueConstraint(fields=("app", "entry"), name="scheduleentry_app_entry"),
        )
        indexes = (models.Index(fields=("task", "uid"), name="scheduleentry_task"),)

    def __str__(self) -> str:
        return self.entry

    @property
    def full_name(self) -> str:
        """Return the task's name with its uid."""
        return full_name(self.task, self.uid)


class Period(models.TextChoices):
    """The lengths of time for which runs are counted, in UTC."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class TaskStatistics(models.Model):
    """The runs of one task that started in one hour, day or month and ended in one way.

    A run is of the hour of its `sort_timestamp`. That time is set once, by the database's clock,
    and is the one by which lists of runs are filtered and ordered.
    """

    pk = models.CompositePrimaryKey("period", "start", "system_task", "state", "status")
    period = models.CharField(max_length=5, choices=Period)
    start = UTCDateTimeField()
    # No foreign key: a task's statistics outlive its row.
    system_task = models.UUIDField()
    state = models.CharField(max_length=10, choices=State)
    status = models.CharField(max_length=10, choices=Status)
    runs = models.IntegerField()
    retries = models.IntegerField(help_text="Runs that are a retry")
    further = models.IntegerField(help_text="Runs that are a further execution of their message")
    duration_sum = models.BigIntegerField(help_text="Microseconds, which add up exactly")
    duration_max = models.FloatField(null=True, help_text="Seconds")
    duration_buckets = ArrayField(models.SmallIntegerField(), default=list)
    duration_counts = ArrayField(models.IntegerField(), default=list)
    wait_sum = models.BigIntegerField(help_text="Microseconds")
    wait_buckets = ArrayField(models.SmallIntegerField(), default=list)
    wait_counts = ArrayField(models.IntegerField(), default=list)
    last_finish = UTCDateTimeField(help_text="The end of the run that ended last", null=True)

    class Meta:
        verbose_name = verbose_name_plural = "task statistics"
        required_db_vendor = "postgresql"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.runs} runs of {self.system_task} in the {self.period} of {self.start}"


class StatisticsChange(models.Model):
    """A change of an ended run whose hour was over, until it is added to the statistics.

    A trigger of the table of runs inserts it, in the transaction of the change.
    """

    id = models.BigAutoField(primary_key=True)
    sign = models.SmallIntegerField(help_text="1 for what the run is now, -1 for what it was")
    sort_timestamp = UTCDateTimeField()
    system_task_id = models.UUIDField()
    state = models.CharField(max_length=10)
    status = models.CharField(max_length=10)
    attempt = models.IntegerField()
    number = models.IntegerField()
    duration = models.FloatField(null=True)
    wait = models.FloatField(null=True)
    finish_timestamp = UTCDateTimeField(null=True)

    class Meta:
        required_db_vendor = "postgresql"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.sign:+d} run of {self.system_task_id} at {self.sort_timestamp}"


class StatisticsProgress(models.Model):
    """The one row that says how far the runs have been counted."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    folded_until = UTCDateTimeField(null=True, help_text="Hours before are in the statistics")
    due_until = UTCDateTimeField(null=True, help_text="Hours before are to be counted next")
    transaction = models.BigIntegerField(
        null=True, help_text="All transactions up to this one have to end before"
    )

    class Meta:
        required_db_vendor = "postgresql"
        default_permissions = ()

    def __str__(self) -> str:
        return f"Runs are counted until {self.folded_until}"
